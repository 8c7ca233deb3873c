// Figures: one routine per kind, options of Apache ECharts from the numbers in the page. Colours come from the theme.
(function () {
  "use strict";
  var page = window.evenbits, echarts = window.echarts, charts = [];
  var TIERS = ["low", "middle", "high", "unknown"];
  var SYMBOLS = { low: "triangle", middle: "diamond", high: "circle", unknown: "circle" };
  var MOST = 60; // languages drawn; the table has all

  function color(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }
  function tierOf(tier) { return TIERS.indexOf(tier) >= 0 ? tier : "unknown"; }
  function compact(value) {
    var size = Math.abs(value);
    if (size >= 1e6 && size < 1e12) { return Number((value / 1e6).toPrecision(4)) + " M"; }
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) { return value.toExponential(0); }
    return String(Number(value.toPrecision(4)));
  }

  // A chart is drawn again when its theme, size or data change.
  function chart(holder, label, draw) {
    holder.setAttribute("role", "img");
    holder.setAttribute("aria-label", label);
    holder.classList.add("chart");
    var entry = { holder: holder, made: null, draw: null };
    entry.draw = function () {
      var width = holder.clientWidth;
      if (!width) { return; }
      var drawn = draw(width);
      holder.style.height = drawn.height + "px";
      if (!entry.made) { entry.made = echarts.init(holder, null, { renderer: "svg" }); }
      entry.made.resize({ height: drawn.height });
      entry.made.setOption(Object.assign(base(), drawn.option), { notMerge: true });
      entry.width = width;
    };
    charts.push(entry);
    new ResizeObserver(function () { if (holder.clientWidth !== entry.width) { entry.draw(); } }).observe(holder);
    return entry;
  }
  function base() {
    return {
      animation: false,
      backgroundColor: "transparent",
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: color("ink") },
      tooltip: { renderMode: "richText", backgroundColor: color("surface"), borderColor: color("soft"),
        textStyle: { color: color("ink"), fontSize: 13 } }
    };
  }
  function axis(more) {
    return Object.assign({
      nameTextStyle: { color: color("soft") },
      axisLabel: { color: color("soft") },
      axisLine: { lineStyle: { color: color("soft") } },
      splitLine: { lineStyle: { color: color("line") } }
    }, more);
  }
  function valueAxis(name, more) {
    return axis(Object.assign({ type: "value", name: name, nameLocation: "middle", axisLabel: { color: color("soft"),
      formatter: compact, hideOverlap: true } }, more));
  }
  function hollow(name) { return { color: color("surface"), borderColor: color(name), borderWidth: 2 }; }
  function heading(text) {
    return { text: text, left: 4, top: 0, textStyle: { fontSize: 13, fontWeight: 600, color: color("ink") } };
  }

  // Lines from low to high beside points: data are [low, high, place]; `upright` where the value runs along y.
  function intervals(data, stroke, upright, width) {
    return {
      type: "custom", silent: true, z: 1, data: data,
      encode: upright ? { x: 2, y: [0, 1] } : { x: [0, 1], y: 2 },
      renderItem: function (params, api) {
        var at = api.value(2);
        var start = api.coord(upright ? [at, api.value(0)] : [api.value(0), at]);
        var end = api.coord(upright ? [at, api.value(1)] : [api.value(1), at]);
        return { type: "line", shape: { x1: start[0], y1: start[1], x2: end[0], y2: end[1] },
          style: { stroke: stroke, lineWidth: width || 3, opacity: 0.5, lineCap: "round" } };
      }
    };
  }

  // -- languages ------------------------------------------------------------------------------------------------------
  function languages() {
    var frame = document.getElementById("language-figure");
    if (!frame || !page.render) { return; }
    frame.hidden = false;
    var holder = document.getElementById("language-chart");
    var entry = chart(holder, holder.getAttribute("aria-label"), function (width) {
      var damage = page.data.damage;
      var rows = page.rows.filter(function (row) { return row[3] !== null; }).slice(0, MOST);
      var many = { m: new Set(rows.map(function (row) { return row[0]; })).size > 1, s: new Set(rows.map(function (row) { return row[1]; })).size > 1 };
      var labels = [], means = {}, at = []; // at: line of each row, for a group begins with a line of its own
      if (page.order) { page.groups(page.order).forEach(function (group) { means[group.name] = group.mean; }); }
      rows.forEach(function (row, place) {
        var language = damage.languages[row[2]], name = page.order ? page.group(row) : null;
        if (name !== null && (place === 0 || page.group(rows[place - 1]) !== name)) {
          labels.push("{group|" + name + (page.order === "tier" ? " resource" : "") + ": mean " + page.number(means[name], true) + "}");
        }
        at.push(labels.length);
        labels.push(language.name + (many.m ? " \u00b7 " + damage.models[row[0]] : "") + (many.s ? " \u00b7 " + damage.specs[row[1]] : ""));
      });
      var room = Math.min(width * 0.38, many.m || many.s ? 300 : 190);
      var series = [];
      TIERS.forEach(function (tier) {
        var mine = [];
        rows.forEach(function (row, place) { if (page.tier(row) === tier) { mine.push([row, at[place], place]); } });
        if (!mine.length) { return; }
        series.push(intervals(mine.filter(function (one) { return one[0][4] !== null && one[0][5] !== null; })
          .map(function (one) { return [one[0][4], one[0][5], one[1]]; }), color("tier-" + tier), false, 4));
        series.push({
          type: "scatter", name: tier, symbol: SYMBOLS[tier], symbolSize: 11, z: 2, itemStyle: { color: color("tier-" + tier) },
          data: mine.map(function (one) { return [one[0][3], one[1], one[2]]; }),
          tooltip: { formatter: function (point) {
            var row = rows[point.value[2]], language = damage.languages[row[2]];
            return language.name + " (" + language.tag + ")\n" + page.estimate(row[3], row[4], row[5]) + " bits per segment\n" +
              language.script + ", resource level " + page.tier(row) + "\n" + damage.models[row[0]] + ", " + damage.specs[row[1]];
          } }
        });
      });
      return {
        height: Math.max(labels.length * 21, 42) + 74,
        option: {
          grid: { left: room + 10, right: 22, top: 12, bottom: 52 },
          xAxis: valueAxis("extra loss, bits per segment", { nameGap: 30, axisLine: { show: false } }),
          yAxis: axis({ type: "category", inverse: true, data: labels, axisTick: { show: false }, splitLine: { show: true, lineStyle: { color: color("line"), opacity: 0.5 } },
            axisLabel: { color: color("ink"), width: room, overflow: "truncate", interval: 0,
              rich: { group: { fontWeight: "bold", color: color("soft") } } } }),
          series: series
        }
      };
    });
    page.onRows.push(function () {
      var drawn = page.rows.filter(function (row) { return row[3] !== null; });
      page.status(drawn.length > MOST ? "the " + MOST + " most harmed are drawn, all are in the table" : "");
      if (drawn.length) {
        var worst = drawn[0], damage = page.data.damage;
        holder.setAttribute("aria-label", "Extra loss in bits per segment of " + Math.min(drawn.length, MOST) + " rows, most harmed first: " +
          damage.languages[worst[2]].name + " " + page.estimate(worst[3], worst[4], worst[5]));
      }
      frame.hidden = !drawn.length;
      if (drawn.length) { entry.draw(); }
    });
    page.render();
  }

  // -- disparity, damage, bits ----------------------------------------------------------------------------------------
  function tradeoff(data) {
    function words(metric) { return metric === "kl" ? "KL" : metric.replace(/_/g, " "); }
    function name(point) { return point.name || "k " + compact(point.k) + " %"; }
    var points = data.points, byk = points.filter(function (point) { return !point.name; }), front = points.filter(function (point) { return point.front; })
      .sort(function (a, b) { return a.bits - b.bits; });
    var styles = ["accent", "tier-middle", "tier-low", "soft"], kinds = ["solid", "dashed", "dotted", "dashed"];
    function disparity(width) {
      var known = byk.map(function (point, place) { return [point.ratio[0], place]; })
        .filter(function (one) { return one[0][1] !== null && one[0][2] !== null; });
      var series = data.metrics.map(function (metric, m) {
        return {
          type: "line", name: words(metric), symbol: "circle", symbolSize: m ? 7 : 10, z: m ? 2 : 3,
          lineStyle: { width: m ? 1.5 : 2.5, type: kinds[m % 4], color: color(styles[m % 4]) },
          itemStyle: m ? hollow(styles[m % 4]) : { color: color(styles[m % 4]) },
          data: byk.map(function (point) { return point.ratio[m][0]; }),
          markArea: m ? undefined : { silent: true, itemStyle: { color: color("supported"), opacity: 0.14 },
            label: { show: true, position: "insideTopLeft", color: color("supported"), formatter: "parity" },
            data: [[{ yAxis: 1 / data.margin }, { yAxis: data.margin }]] },
          markLine: m || data.recommended === null || data.recommended >= byk.length ? undefined : { symbol: "none", silent: true, lineStyle: { color: color("soft"), type: "dotted" },
            label: { formatter: "recommended", color: color("soft"), position: "insideEndTop", rotate: 0, align: "center" }, data: [{ xAxis: data.recommended }] }
        };
      });
      series.push(intervals(known.map(function (one) { return [one[0][1], one[0][2], one[1]]; }), color("accent"), true, 4));
      return { height: 360, option: {
        title: heading("Disparity by share kept"),
        legend: { bottom: 0, textStyle: { color: color("ink") }, data: data.metrics.map(words) },
        grid: { left: 56, right: 20, top: 44, bottom: 78 },
        tooltip: Object.assign(base().tooltip, { trigger: "axis", valueFormatter: function (value) { return Array.isArray(value) ? "" : page.number(value); } }),
        xAxis: axis({ type: "category", data: byk.map(function (point) { return compact(point.k) + " %"; }), name: "share of weights kept, k", nameLocation: "middle", nameGap: 28 }),
        yAxis: valueAxis("low over high resource", { nameGap: 38, scale: true }),
        series: series
      } };
    }
    function cost() {
      function item(point) {
        var chosen = points.indexOf(point) === data.recommended, ratio = point.ratio[0][0];
        var far = (point.bits - points[0].bits) * 2 > points[points.length - 1].bits - points[0].bits;
        return { name: name(point), value: [point.bits, point.damage, ratio], symbolSize: chosen ? 17 : 11,
          label: { show: true, position: far ? [0, 20] : [10, -15], align: far ? "right" : "left", formatter: name(point) + (ratio === null ? "" : ", disparity " + page.number(ratio)) + (chosen ? ", recommended" : ""),
            fontWeight: chosen ? "bold" : "normal" } };
      }
      var label = { color: color("ink"), textBorderColor: color("surface"), textBorderWidth: 3 };
      return { height: 360, option: {
        title: heading("Mean damage by storage"),
        legend: { bottom: 0, textStyle: { color: color("ink") }, data: ["on the Pareto front", "bettered by another"] },
        grid: { left: 60, right: 30, top: 44, bottom: 78 },
        tooltip: Object.assign(base().tooltip, { formatter: function (one) {
          return one.name + "\n" + page.number(one.value[1]) + " bits of extra loss per segment\n" + page.number(one.value[0]) + " bits per weight\n" +
            "disparity " + page.number(one.value[2]);
        } }),
        xAxis: valueAxis("bits per weight", { nameGap: 28, scale: true }),
        yAxis: valueAxis("mean extra loss, bits per segment", { nameGap: 44, scale: true }),
        series: [
          { type: "line", name: "on the Pareto front", symbol: "circle", label: label, labelLayout: { hideOverlap: true }, data: front.map(item),
            itemStyle: { color: color("accent") }, lineStyle: { color: color("accent"), width: 2 } },
          { type: "scatter", name: "bettered by another", symbol: "circle", label: label, labelLayout: { hideOverlap: true },
            itemStyle: hollow("soft"), data: points.filter(function (point) { return !point.front; }).map(item) }
        ]
      } };
    }
    return [disparity, cost];
  }

  // -- maps -----------------------------------------------------------------------------------------------------------
  function matrix(data, chosen) {
    var metric = data.metrics[chosen.metric || 0], cells = [], known = [];
    metric.values.forEach(function (line, y) {
      line.forEach(function (value, x) { if (value !== null) { cells.push([x, y, value]); known.push(value); } });
    });
    var low = Math.min.apply(null, known), high = Math.max.apply(null, known);
    var log = low > 0 && high / low > 30; // a few large cells would leave the rest without contrast
    var scale = function (value) { return log ? Math.log10(value) : value; };
    return [function (width) {
      var room = Math.min(width * 0.3, 130);
      return { height: Math.max(data.y.length * (data.y.length > 24 ? 17 : 24), 60) + 118, option: {
        title: heading(metric.name + (log ? ", logarithmic colours" : "")),
        grid: { left: room + 8, right: 12, top: 34, bottom: 92 },
        tooltip: Object.assign(base().tooltip, { formatter: function (one) {
          return data.y[one.value[1]] + ", " + data.x_name + " " + data.x[one.value[0]] + "\n" + metric.name + ": " + page.number(one.value[3]);
        } }),
        xAxis: axis({ type: "category", data: data.x, name: data.x_name, nameLocation: "middle", nameGap: 26, axisTick: { show: false }, axisLabel: { color: color("soft"), hideOverlap: true } }),
        yAxis: axis({ type: "category", data: data.y, inverse: true, axisTick: { show: false },
          axisLabel: { color: color("ink"), width: room, overflow: "truncate", interval: 0, fontSize: data.y.length > 24 ? 10.5 : 12 } }),
        visualMap: { type: "continuous", min: scale(low), max: low === high ? scale(low) + 1 : scale(high), dimension: 2, calculable: false, orient: "horizontal",
          left: "center", bottom: 2, itemHeight: Math.min(width * 0.4, 220), itemWidth: 12, textStyle: { color: color("soft") }, text: [page.number(high), page.number(low)],
          inRange: { color: [0, 1, 2, 3].map(function (step) { return color("heat-" + step); }) } },
        series: [{ type: "heatmap", data: cells.map(function (one) { return [one[0], one[1], scale(one[2]), one[2]]; }),
          itemStyle: { borderWidth: 1, borderColor: color("surface") }, emphasis: { itemStyle: { borderColor: color("ink"), borderWidth: 2 } } }]
      } };
    }];
  }

  // -- dots: a line per thing, with interval where there is one ---------------------------------------------------------
  function dots(data, chosen) {
    var metric = data.metrics[chosen.metric || 0];
    var known = metric.values.map(function (one) { return one[0]; }).filter(function (value) { return value !== null; });
    var low = Math.min.apply(null, known), high = Math.max.apply(null, known);
    var log = low > 0 && high / low > 100 && metric.values.every(function (one) { return one[1] === null; });
    function words(place) {
      var one = metric.values[place];
      return page.estimate(one[0], one[1], one[2]).replace(/^\+/, "");
    }
    return [function (width) {
      var room = Math.min(width * 0.42, 260), tight = width < 520;
      var bars = metric.values.map(function (one, place) { return [one[1], one[2], place]; }).filter(function (one) { return one[0] !== null && one[1] !== null; });
      return { height: Math.max(data.y.length * 26, 60) + 96, option: {
        title: heading(metric.name + (log ? ", logarithmic" : "")),
        grid: { left: room + 10, right: tight ? 64 : 190, top: 34, bottom: 44 },
        tooltip: Object.assign(base().tooltip, { formatter: function (one) {
          return data.y[one.value[1]] + "\n" + metric.name + ": " + words(one.value[1]) + (data.notes[one.value[1]] ? "\n" + data.notes[one.value[1]] : "");
        } }),
        xAxis: valueAxis("", { type: log ? "log" : "value", axisLine: { show: false } }),
        yAxis: axis({ type: "category", inverse: true, data: data.y, axisTick: { show: false }, splitLine: { show: true, lineStyle: { color: color("line"), opacity: 0.5 } },
          axisLabel: { color: color("ink"), width: room, overflow: "truncate", interval: 0,
            formatter: function (text) { return tight && text.indexOf("/") >= 0 ? text.split("/").pop() : text; } } }),
        series: [intervals(bars, color("accent"), false, 4), {
          type: "scatter", symbolSize: 1, silent: true, itemStyle: { color: "transparent" }, // words beyond the end of each line
          label: { show: true, position: "right", distance: 9, color: color("soft"), fontSize: 11.5, formatter: function (one) {
            var note = data.notes[one.value[1]];
            return page.number(metric.values[one.value[1]][0]) + (note && !tight ? "  " + note : "");
          } },
          data: metric.values.map(function (one, place) { return [one[2] === null ? one[0] : one[2], place]; }).filter(function (one) { return one[0] !== null; })
        }, {
          type: "scatter", symbolSize: 11, z: 2,
          data: metric.values.map(function (one, place) {
            var mark = data.marks[place];
            return { value: [one[0], place], symbol: mark === "strong" ? "diamond" : "circle", symbolSize: mark === "strong" ? 15 : 11,
              itemStyle: { color: mark === "strong" ? color("supported") : mark === "faint" ? color("tier-unknown") : color("accent") } };
          }).filter(function (one) { return one.value[0] !== null; })
        }]
      } };
    }];
  }

  // -- scatter --------------------------------------------------------------------------------------------------------
  function scatter(data, chosen) {
    var metric = data.metrics[chosen.metric || 0];
    return [function (width) {
      var tiers = TIERS.filter(function (tier) { return metric.points.some(function (point) { return tierOf(point[3]) === tier; }); });
      return { height: 440, option: {
        legend: { bottom: 0, show: tiers.length > 1, itemWidth: 12, itemHeight: 12, textStyle: { color: color("ink") } },
        grid: { left: 62, right: 40, top: 20, bottom: tiers.length > 1 ? 84 : 52 },
        tooltip: Object.assign(base().tooltip, { formatter: function (one) {
          return one.name + "\n" + metric.name + ": " + page.number(one.value[0]) + "\n" + data.y_name + ": " + page.number(one.value[1]);
        } }),
        xAxis: valueAxis(metric.name, { nameGap: 28, scale: true }),
        yAxis: valueAxis(data.y_name, { nameGap: 44, scale: true }),
        series: tiers.map(function (tier) {
          return { type: "scatter", name: tiers.length > 1 ? tier + " resource" : "", symbol: SYMBOLS[tier], symbolSize: 11,
            itemStyle: { color: tiers.length > 1 ? color("tier-" + tier) : color("accent") },
            label: { show: width > 420 || metric.points.length < 14, position: "top", formatter: "{b}", color: color("ink"), fontSize: 11, textBorderColor: color("surface"), textBorderWidth: 2 },
            labelLayout: { hideOverlap: true },
            data: metric.points.filter(function (point) { return tierOf(point[3]) === tier; })
              .map(function (point) { return { name: point[2], value: [point[0], point[1]] }; }) };
        })
      } };
    }];
  }

  // -- lines ----------------------------------------------------------------------------------------------------------
  function lines(data) {
    var styles = ["accent", "tier-low", "tier-middle", "soft"], symbols = ["circle", "triangle", "diamond", "rect"];
    return [function () {
      return { height: 380, option: {
        legend: { bottom: 0, type: "scroll", textStyle: { color: color("ink") } },
        grid: { left: 62, right: 24, top: 20, bottom: 84 },
        tooltip: Object.assign(base().tooltip, { trigger: "axis", valueFormatter: page.number }),
        xAxis: valueAxis(data.x_name, { nameGap: 28 }),
        yAxis: valueAxis(data.y_name, { nameGap: 44, scale: true }),
        series: data.series.map(function (one, place) {
          var mine = color(styles[place % 4]);
          return { type: "line", name: one.name, symbol: symbols[place % 4], symbolSize: 8, lineStyle: { color: mine, width: 2 }, itemStyle: { color: mine },
            data: one.y.map(function (y, at) { return [data.x[at], y]; }) };
        })
      } };
    }];
  }

  // -- sections -------------------------------------------------------------------------------------------------------
  var KINDS = { tradeoff: tradeoff, matrix: matrix, dots: dots, scatter: scatter, lines: lines };
  function section(element) {
    var cases = page.data.figures[element.dataset.figure], holders = element.querySelector(".charts");
    var texts = element.querySelectorAll(".case-text"), filters = element.querySelector(".filters");
    var select = element.querySelector("select.case"), chosen = { metric: 0 }, metrics = null;
    filters.hidden = false;
    var label = document.createElement("label");
    if (cases[0].metrics && cases[0].metrics[0].name && cases.some(function (one) { return one.metrics.length > 1; })) {
      metrics = document.createElement("select");
      label.append(element.dataset.kind === "scatter" ? "Predictor " : "Metric ", metrics);
      filters.appendChild(label);
    }
    function draw() {
      var place = select ? Number(select.value) : 0, data = cases[place];
      Array.prototype.forEach.call(texts, function (text, at) { text.hidden = at !== place; });
      charts = charts.filter(function (entry) {
        var mine = holders.contains(entry.holder);
        if (mine && entry.made) { entry.made.dispose(); }
        return !mine;
      });
      holders.textContent = "";
      var words = texts[place].querySelector(".alternative").textContent;
      KINDS[element.dataset.kind](data, chosen).forEach(function (routine) {
        var frame = document.createElement("div"), holder = document.createElement("div");
        frame.appendChild(holder);
        holders.appendChild(frame);
        chart(holder, words, routine).draw();
      });
    }
    function refill() {
      if (!metrics) { return; }
      metrics.textContent = "";
      label.hidden = cases[select ? Number(select.value) : 0].metrics.length < 2;
      cases[select ? Number(select.value) : 0].metrics.forEach(function (metric, place) {
        var option = document.createElement("option");
        option.value = place;
        option.textContent = metric.name;
        metrics.appendChild(option);
      });
      chosen.metric = 0;
    }
    if (select) { select.addEventListener("change", function () { refill(); draw(); }); }
    if (metrics) { metrics.addEventListener("change", function () { chosen.metric = Number(metrics.value); draw(); }); }
    refill();
    draw();
  }

  languages();
  Array.prototype.forEach.call(document.querySelectorAll("section.figure"), section);
  page.onTheme.push(function () { charts.forEach(function (entry) { entry.draw(); }); });
  page.ready();
})();
