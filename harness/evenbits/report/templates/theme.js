// Runs before the page is painted, so that a chosen theme does not flash.
(function () {
  "use strict";
  var chosen = null;
  try { chosen = localStorage.getItem("evenbits-theme"); } catch (error) { chosen = null; }
  if (chosen === "light" || chosen === "dark") { document.documentElement.dataset.theme = chosen; }
})();
