// Theme, sortable tables, filters, copy buttons. No dependency. Texts enter the page as text, never as markup.
(function () {
  "use strict";
  var DASH = "\u2013";
  var data = JSON.parse(document.getElementById("page-data").textContent);
  var page = window.evenbits = { data: data, onTheme: [], onRows: [] };

  function each(selector, action, root) {
    Array.prototype.forEach.call((root || document).querySelectorAll(selector), action);
  }

  // -- theme ------------------------------------------------------------------------------------------------------
  var toggle = document.getElementById("theme");
  var darkByDefault = window.matchMedia("(prefers-color-scheme: dark)");
  function isDark() {
    var chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : darkByDefault.matches;
  }
  function themeChanged() {
    toggle.textContent = isDark() ? "Light theme" : "Dark theme";
    page.onTheme.forEach(function (action) { action(); });
  }
  toggle.hidden = false;
  toggle.addEventListener("click", function () {
    var next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("evenbits-theme", next); } catch (error) { /* a page without storage keeps it until closed */ }
    themeChanged();
  });
  darkByDefault.addEventListener("change", themeChanged);

  // -- numbers, as harness/report/numbers.py writes them -------------------------------------------------------------
  page.number = function (value, sign) {
    if (value === null || value === undefined) { return "n/a"; }
    var size = Math.abs(value), plus = sign && value > 0 ? "+" : "", text;
    if (size === 0) { return "0"; }
    if (size >= 1e6 || size < 1e-3) {
      text = value.toExponential(2).replace(/e([+-])(\d)$/, "e$10$2");
    } else if (size >= 99.95) {
      text = Math.round(value).toLocaleString("en-US");
    } else {
      text = value.toFixed(size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3);
    }
    return plus + text;
  };
  page.estimate = function (value, low, high) {
    if (value === null) { return "undefined"; }
    var text = page.number(value, true);
    return low === null || high === null ? text : text + " [" + page.number(low) + ", " + page.number(high) + "]";
  };

  // -- sorting ------------------------------------------------------------------------------------------------------
  function sortValue(cell) {
    var given = cell.dataset.value;
    var text = given === undefined ? cell.textContent.trim() : given;
    if (text === "" || text === DASH || text === "n/a" || text === "undefined") { return null; }
    var plain = Number(given === undefined ? text.replace(/,/g, "") : given);
    return isNaN(plain) ? text : plain;
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") { return a - b; }
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }
  function sortTable(table, column, direction) {
    var body = table.tBodies[0];
    var rows = Array.prototype.map.call(body.rows, function (row, place) {
      return { row: row, place: place, value: sortValue(row.cells[column]) };
    });
    rows.sort(function (a, b) { // what is undefined stays last in both directions
      if (a.value === null || b.value === null) { return (a.value === null) - (b.value === null) || a.place - b.place; }
      return compare(a.value, b.value) * direction || a.place - b.place;
    });
    var sorted = document.createDocumentFragment();
    rows.forEach(function (entry) { sorted.appendChild(entry.row); });
    body.appendChild(sorted);
    each("th", function (head, place) {
      if (place === column) { head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending"); }
      else { head.removeAttribute("aria-sort"); }
    }, table.tHead);
  }
  each("table.sortable", function (table) {
    each("th", function (head, column) {
      var button = document.createElement("button");
      button.type = "button";
      while (head.firstChild) { button.appendChild(head.firstChild); }
      head.appendChild(button);
      button.addEventListener("click", function () {
        var now = head.getAttribute("aria-sort");
        var first = head.classList.contains("num") ? -1 : 1; // numbers: largest first
        sortTable(table, column, now === null ? first : now === "ascending" ? -1 : 1);
      });
    }, table.tHead);
  });

  // -- filters of tables that stand in the page -----------------------------------------------------------------------
  function options(select, entries, all) {
    (all ? [["", all]] : []).concat(entries).forEach(function (entry) {
      var option = document.createElement("option");
      option.value = entry[0];
      option.textContent = entry[1];
      select.appendChild(option);
    });
  }
  function hideUseless(form) { // a choice of one is none
    each("select", function (select) {
      var real = Array.prototype.filter.call(select.options, function (option) { return option.value !== ""; });
      select.parentNode.hidden = real.length < 2 && select.dataset.column !== "order";
    }, form);
  }
  function distinct(values) {
    return values.filter(function (value, place) { return values.indexOf(value) === place; });
  }
  each("form[data-filters]", function (form) {
    var table = document.getElementById(form.dataset.filters);
    var status = document.getElementById(form.dataset.filters + "-status");
    var rows = Array.prototype.slice.call(table.tBodies[0].rows);
    each("select", function (select) {
      var column = Number(select.dataset.column);
      var texts = distinct(rows.map(function (row) { return row.cells[column].textContent.trim(); }));
      options(select, texts.map(function (text) { return [text, text]; }), "all");
    }, form);
    hideUseless(form);
    function apply() {
      var shown = 0;
      rows.forEach(function (row) {
        var fits = true;
        each("select", function (select) {
          if (select.value && row.cells[Number(select.dataset.column)].textContent.trim() !== select.value) { fits = false; }
        }, form);
        var words = form.querySelector("input").value.trim().toLowerCase();
        if (words && row.textContent.toLowerCase().indexOf(words) < 0) { fits = false; }
        row.hidden = !fits;
        shown += fits ? 1 : 0;
      });
      status.textContent = shown + " of " + rows.length + " rows";
    }
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    apply();
  });

  // -- the table of languages -----------------------------------------------------------------------------------------
  var TIER_SHAPES = { low: "M5 0.5 9.7 9H0.3z", middle: "M5 0 10 5 5 10 0 5z" };
  function tierMark(tier) {
    var span = document.createElement("span"), space = "http://www.w3.org/2000/svg";
    span.className = "tier tier-" + tier;
    var svg = document.createElementNS(space, "svg");
    svg.setAttribute("class", "mark");
    svg.setAttribute("viewBox", "0 0 10 10");
    svg.setAttribute("aria-hidden", "true");
    svg.setAttribute("focusable", "false");
    var shape = document.createElementNS(space, TIER_SHAPES[tier] ? "path" : "circle");
    if (TIER_SHAPES[tier]) { shape.setAttribute("d", TIER_SHAPES[tier]); }
    else { shape.setAttribute("cx", "5"); shape.setAttribute("cy", "5"); shape.setAttribute("r", "4.3"); }
    svg.appendChild(shape);
    span.appendChild(svg);
    span.appendChild(document.createTextNode(tier));
    return span;
  }
  function nativeName(tag) { // the browser knows what a language calls itself
    try {
      var name = new Intl.DisplayNames([tag], { type: "language", fallback: "none" }).of(tag);
      return name || "";
    } catch (error) { return ""; }
  }
  function cell(row, text, value, kind) {
    var td = document.createElement("td");
    td.textContent = text;
    if (kind) { td.className = kind; }
    if (value !== undefined) { td.dataset.value = value === null ? "" : value; }
    row.appendChild(td);
    return td;
  }
  page.tier = function (entry) { return data.damage.tiers[entry[13]]; };
  function languageRow(entry) {
    var damage = data.damage, language = damage.languages[entry[2]], row = document.createElement("tr");
    var head = document.createElement("th"), name = document.createElement("bdi"), tag = document.createElement("span");
    head.scope = "row";
    name.textContent = language.name;
    tag.className = "tag";
    tag.textContent = language.tag;
    head.append(name, " ", tag);
    if (language.native === undefined) { language.native = nativeName(language.tag); }
    if (language.native && language.native.toLowerCase() !== language.name.toLowerCase()) {
      var native = document.createElement("bdi");
      native.className = "native";
      native.lang = language.tag;
      native.dir = "auto";
      native.textContent = language.native;
      head.appendChild(native);
    }
    head.dataset.value = language.name;
    row.appendChild(head);
    cell(row, damage.models[entry[0]]);
    cell(row, damage.specs[entry[1]]);
    cell(row, language.script);
    var tier = cell(row, "");
    tier.appendChild(tierMark(page.tier(entry)));
    cell(row, page.estimate(entry[3], entry[4], entry[5]), entry[3], "num");
    cell(row, page.number(entry[14], true), entry[14], "num");
    cell(row, page.estimate(entry[6], entry[7], entry[8]), entry[6], "num");
    cell(row, page.number(entry[9]), entry[9], "num");
    cell(row, page.number(entry[10]), entry[10], "num");
    cell(row, entry[11] >= 1000 ? page.number(entry[11]) : String(entry[11]), entry[11], "num");
    cell(row, damage.notes[entry[12]], undefined, "text");
    return row;
  }

  // -- languages by resource level and by script -----------------------------------------------------------------------
  function groupName(entry, by) { return by === "tier" ? page.tier(entry) : data.damage.languages[entry[2]].script; }
  page.group = function (entry) { return groupName(entry, page.order); };
  function groups(by) { // levels in their order, scripts by their mean
    var found = {};
    page.rows.forEach(function (entry) {
      var name = groupName(entry, by);
      (found[name] = found[name] || []).push(entry);
    });
    var list = Object.keys(found).map(function (name) {
      var known = found[name].filter(function (entry) { return entry[3] !== null; }).sort(function (a, b) { return b[14] - a[14]; });
      var sum = known.reduce(function (total, entry) { return total + entry[3]; }, 0);
      return { name: name, rows: found[name].length, mean: known.length ? sum / known.length : null, known: known };
    });
    return list.sort(function (a, b) {
      if (by === "tier") { return data.damage.tiers.indexOf(a.name) - data.damage.tiers.indexOf(b.name); }
      return (a.mean === null) - (b.mean === null) || b.mean - a.mean || compare(a.name, b.name);
    });
  }
  page.groups = groups;
  function named(entry) { return data.damage.languages[entry[2]].name + " " + page.number(entry[3], true); }
  function groupTable(title, by) {
    var list = groups(by), frame = document.createElement("div"), table = document.createElement("table");
    var caption = table.createCaption(), head = table.createTHead().insertRow(), body = table.createTBody();
    frame.className = "scroll";
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", title);
    caption.textContent = title;
    [[by === "tier" ? "Level" : "Script", ""], ["Languages", "num"], ["Mean extra loss, bits", "num"], ["Most harmed", ""], ["Least harmed", ""]]
      .forEach(function (column) {
        var th = document.createElement("th");
        th.scope = "col";
        th.className = column[1];
        th.textContent = column[0];
        head.appendChild(th);
      });
    list.forEach(function (group) {
      var row = body.insertRow(), name = document.createElement("th");
      name.scope = "row";
      if (by === "tier") { name.appendChild(tierMark(group.name)); } else { name.textContent = group.name; }
      row.appendChild(name);
      cell(row, String(group.rows), group.rows, "num");
      cell(row, page.number(group.mean, true), group.mean, "num");
      cell(row, group.known.length ? named(group.known[0]) : DASH);
      cell(row, group.known.length ? named(group.known[group.known.length - 1]) : DASH);
    });
    frame.appendChild(table);
    return list.length > 1 ? frame : null;
  }
  function showGroups(comparable) { // means over several models or specs would say nothing
    var holder = document.getElementById("language-groups");
    holder.textContent = "";
    if (comparable) {
      [groupTable("By resource level", "tier"), groupTable("By script", "script")].forEach(function (frame) {
        if (frame) { holder.appendChild(frame); }
      });
    }
    holder.hidden = !holder.firstChild;
  }

  var form = document.getElementById("language-filters");
  if (form && data.damage.rows.length) {
    var field = {};
    each("[data-column]", function (input) { field[input.dataset.column] = input; }, form);
    var places = function (texts) { return texts.map(function (text, place) { return [String(place), text]; }); };
    options(field.model, places(data.damage.models), "all");
    options(field.spec, places(data.damage.specs), "all");
    field.model.value = String(data.damage.start[0]);
    field.spec.value = String(data.damage.start[1]);
    var scripts = distinct(data.damage.languages.map(function (language) { return language.script; })).sort();
    options(field.script, scripts.map(function (text) { return [text, text]; }), "all");
    var levels = data.damage.tiers.filter(function (tier) { return data.damage.rows.some(function (entry) { return page.tier(entry) === tier; }); });
    options(field.tier, levels.map(function (text) { return [text, text]; }), "all");
    hideUseless(form);
    var table = document.getElementById("language-table"), ranked = table.classList.contains("no-pooled") ? 5 : 6;
    var render = function () {
      var words = field.search.value.trim().toLowerCase();
      page.rows = data.damage.rows.filter(function (entry) {
        var language = data.damage.languages[entry[2]];
        var searched = [language.name, language.tag, language.family, language.native || ""].join(" ").toLowerCase();
        return (field.model.value === "" || entry[0] === Number(field.model.value)) &&
          (field.spec.value === "" || entry[1] === Number(field.spec.value)) &&
          (field.script.value === "" || language.script === field.script.value) &&
          (field.tier.value === "" || page.tier(entry) === field.tier.value) &&
          (words === "" || searched.indexOf(words) >= 0);
      });
      page.order = field.order.value;
      var places = {};
      if (page.order) { groups(page.order).forEach(function (group, place) { places[group.name] = place; }); }
      page.rows.sort(function (a, b) {
        if (page.order && page.group(a) !== page.group(b)) { return places[page.group(a)] - places[page.group(b)]; }
        if (a[3] === null || b[3] === null) { return (a[3] === null) - (b[3] === null); }
        return b[14] - a[14] || compare(data.damage.languages[a[2]].tag, data.damage.languages[b[2]].tag);
      });
      var body = document.createElement("tbody");
      page.rows.forEach(function (entry) { body.appendChild(languageRow(entry)); });
      table.replaceChild(body, table.tBodies[0]);
      table.classList.toggle("one-model", data.damage.models.length === 1 || field.model.value !== "");
      table.classList.toggle("one-spec", data.damage.specs.length === 1 || field.spec.value !== "");
      showGroups(field.model.value !== "" && field.spec.value !== "");
      each("th", function (head, column) {
        if (column === ranked && !page.order) { head.setAttribute("aria-sort", "descending"); } else { head.removeAttribute("aria-sort"); }
      }, table.tHead);
      page.onRows.forEach(function (action) { action(); });
    };
    page.status = function (note) {
      document.getElementById("language-status").textContent =
        page.rows.length + " of " + data.damage.rows.length + " rows" + (note ? "; " + note : "");
    };
    form.hidden = false;
    form.addEventListener("input", render);
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    page.render = render;
  }

  // -- copy, print ----------------------------------------------------------------------------------------------------
  each("button.copy", function (button) {
    button.hidden = false;
    var label = button.firstChild;
    button.addEventListener("click", function () {
      var source = document.getElementById(button.dataset.copy);
      var chosen = window.getSelection();
      chosen.selectAllChildren(source);
      var done = false;
      try { done = document.execCommand("copy"); } catch (error) { done = false; }
      if (done) { chosen.removeAllRanges(); }
      label.data = done ? "Copied" : "Press Ctrl+C"; // where copying is forbidden the text stays selected
      setTimeout(function () { label.data = "Copy"; }, 2500);
    });
  });
  var worn; // the theme to go back to: paper is light, and figures take their colours when they are drawn
  window.addEventListener("beforeprint", function () {
    worn = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    themeChanged();
  });
  window.addEventListener("afterprint", function () {
    if (worn) { document.documentElement.dataset.theme = worn; } else { delete document.documentElement.dataset.theme; }
    themeChanged();
  });

  page.isDark = isDark;
  page.ready = function () { themeChanged(); };
})();
