/* The status page: asks for the rows that are looked at, and changes what has changed. */
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const RETRY = 3000, PATIENCE = 8000;
  const PLOT = { width: 110, height: 22 };

  const look = new URLSearchParams(location.search);
  const get = (key) => look.get(key) || "";

  // ---- words and numbers

  const short = (number) => {
    if (number === null || number === undefined) return "–";
    for (const [factor, unit] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
      if (number >= factor * (factor === 1e3 ? 10 : 1)) return (number / factor).toFixed(1) + unit;
    }
    return number >= 10 || Number.isInteger(number) ? String(Math.round(number)) : number.toFixed(1);
  };
  const whole = (number) => (number === null || number === undefined ? "–" : number.toLocaleString("en"));
  const bits = (bytes) => `${short(bytes * 8)}${bytes * 8 >= 1e4 ? "" : " "}bit/s`;
  const perSecond = (number) => `${short(number)}/s`;
  const plural = (number, word) => `${whole(number)} ${word}${number === 1 ? "" : "s"}`;
  const ago = (seconds) => {
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
      if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
    }
    return `${Math.max(0, Math.floor(seconds))} s`;
  };
  const last = (values) => (values && values.length ? values[values.length - 1] : null);

  // ---- elements that are changed only where they differ

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const setClass = (element, name) => { if (element.getAttribute("class") !== name) element.setAttribute("class", name); };
  const setHidden = (element, hidden) => { if (element.hidden !== hidden) element.hidden = hidden; };

  const SVG = "http://www.w3.org/2000/svg";
  const makePlot = (width = PLOT.width, height = PLOT.height) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    for (const name of ["area", "stroke"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
    return svg;
  };
  const POINTS = 90;
  const draw = (svg, values) => {
    const { width, height } = svg.viewBox.baseVal;
    const top = Math.max(...values, 0);
    const step = width / (POINTS - 1);
    const start = width - step * (values.length - 1);
    const line = values.map((value, index) => {
      const y = height - 1 - (top > 0 ? (value / top) * (height - 3) : 0);
      return `${index ? "L" : "M"}${(start + index * step).toFixed(1)} ${y.toFixed(1)}`;
    }).join("");
    const area = line && `${line}L${width} ${height}L${start.toFixed(1)} ${height}Z`;
    const [shade, stroke] = svg.children;
    if (stroke.getAttribute("d") !== line) {
      stroke.setAttribute("d", line);
      shade.setAttribute("d", area);
    }
  };

  /* Bring a parent's children into the order of `items`: one element for each key, made once. */
  const reconcile = (parent, items, keyOf, create, update) => {
    const known = parent.llbKnown || (parent.llbKnown = new Map());
    const wanted = new Set();
    let place = parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      wanted.add(key);
      let element = known.get(key);
      if (!element) known.set(key, (element = create(item)));
      update(element, item);
      if (element === place) place = place.nextElementSibling;
      else parent.insertBefore(element, place);
    }
    for (const [key, element] of known) {
      if (!wanted.has(key)) {
        element.remove();
        known.delete(key);
      }
    }
  };

  // ---- tables

  const plotCell = (className, values) => ({
    className: `plot ${className}`,
    make: (cell) => cell.append(makePlot()),
    update: (cell, row) => draw(cell.firstChild, values(row)),
  });
  const textCell = (className, text) => ({ className, make() {}, update: (cell, row) => setText(cell, text(row)) });
  const twoLines = (className, top, under, topClass = () => "") => ({
    className,
    make: (cell) => cell.append(make("span"), make("span", { class: "under" })),
    update: (cell, row) => {
      const [first, second] = cell.children;
      setText(first, top(row));
      setClass(first, topClass(row));
      const text = under(row);
      setText(second, text);
      setHidden(second, !text);
    },
  });

  const rate = (row, name) => (row.rates ? row.rates[name] : null);
  const traffic = [
    { title: "Connections", order: "connections", ...textCell("number tiny", (row) => short(row.connections)) },
    { title: "Opened", order: "opened", ...textCell("number small", (row) => (row.rates ? perSecond(rate(row, "opened")) : "–")) },
    { title: "", label: "Opened, over time", ...plotCell("medium", (row) => row.past.opened || []) },
    { title: "Traffic", order: "bytes", ...textCell("number small", (row) => (row.rates ? bits(rate(row, "bytes")) : "–")) },
    { title: "", label: "Traffic, over time", ...plotCell("wide", (row) => row.past.bytes || []) },
    { title: "Drops", order: "drops", ...textCell("number wide", (row) => short(row.drops)) },
  ];

  const serviceState = (row) => {
    if (!row.active) return ["bad", row.backends ? "none takes connections" : "no backend"];
    if (row.unhealthy) return ["warn", `${row.unhealthy} of ${row.backends} unhealthy`];
    if (row.active < row.backends) return ["warn", `${row.active} of ${row.backends} active`];
    return ["good", row.backends === 1 ? "1 active" : `all ${row.backends} active`];
  };
  const sourceOf = (row) => row.sources.map((each) => each.provider).join(", ");
  const sourceTrouble = (row) => row.sources
    .filter((each) => each.error)
    .map((each) => (each.age === null ? "never answered" : `fails, answer ${ago(each.age)} old`))
    .join("; ");

  let now = 0;
  const SERVICE_COLUMNS = [
    {
      title: "Service", order: "name", isHeader: true, className: "",
      make: (cell, row) => {
        const button = make("button", { class: "link", type: "button" }, row.name);
        button.addEventListener("click", () => chooseService(row.name));
        cell.append(button, make("span", { class: "under" }));
      },
      update: (cell, row) => setText(cell.children[1], row.addresses.join(", ")),
    },
    { title: "Backends", ...twoLines("", (row) => serviceState(row)[1], () => "", (row) => `state ${serviceState(row)[0]}`) },
    ...traffic,
    { title: "Provider", ...twoLines("medium", sourceOf, sourceTrouble, (row) => (sourceTrouble(row) ? "state warn" : "")) },
  ];

  const healthClass = { healthy: "good", unhealthy: "bad", unknown: "warn", unchecked: "none" };
  const backendState = (row) => (row.mode === "active" || row.health === "unhealthy" ? row.health : `${row.health}, ${row.mode}`);
  const backendWhy = (row) => {
    const parts = [];
    if (row.reason) parts.push(row.reason);
    if (row.health === "unhealthy") parts.push(row.mode === "active" ? "gets traffic all the same" : row.mode);
    for (const order of row.orders) {
      const what = order.order === "weight" ? `weight ${order.weight}` : order.order;
      parts.push(`${what} ordered by ${order.by || "somebody"}${order.why ? `: ${order.why}` : ""}`);
    }
    if (row.provider_weights.length) parts.push(`its providers say weight ${row.provider_weights.join(" and ")}`);
    if (row.since) parts.push(`for ${ago(now - row.since)}`);
    return parts.join(" · ");
  };
  const BACKEND_COLUMNS = [
    { title: "Backend", order: "backend", isHeader: true, ...twoLines("", (row) => row.backend, (row) => row.service) },
    {
      title: "Health", order: "health",
      ...twoLines("", backendState, backendWhy,
        (row) => `state ${row.mode !== "active" && row.health !== "unhealthy" ? "warn" : healthClass[row.health]}`),
    },
    ...traffic,
    { title: "Weight", ...textCell("number wide", (row) => String(row.weight)) },
  ];

  const DROP_COLUMNS = [
    { title: "Reason", isHeader: true, ...twoLines("", (row) => row.reason.replaceAll("_", " "), (row) => row.meaning) },
    { title: "Packets", ...textCell("number", (row) => short(row.packets)) },
    { title: "Now", ...textCell("number", (row) => perSecond(last(row.past) || 0)) },
    { title: "", label: "Over time", ...plotCell("medium", (row) => row.past) },
  ];

  const setUpTable = (table, columns, orderKey) => {
    const head = table.tHead.rows[0];
    for (const column of columns) {
      const cell = make("th", { scope: "col", class: column.className || "" });
      if (column.order) {
        const button = make("button", { type: "button" }, column.title);
        button.addEventListener("click", () => orderBy(orderKey, column));
        cell.append(button);
      } else if (column.title) cell.append(column.title);
      else cell.append(make("span", { class: "unseen" }, column.label));
      head.append(cell);
    }
    return (rows, keyOf, order, emptyText) => {
      columns.forEach((column, index) => {
        if (!column.order) return;
        const plain = order.replace("-", "");
        const sorted = plain === column.order ? (order.startsWith("-") ? "descending" : "ascending") : null;
        if (sorted) head.cells[index].setAttribute("aria-sort", sorted);
        else head.cells[index].removeAttribute("aria-sort");
      });
      const body = table.tBodies[0];
      reconcile(
        body,
        rows.length ? rows : [null],
        (row) => (row ? keyOf(row) : ""),
        (row) => {
          if (!row) return make("tr", {}, make("td", { colspan: columns.length, class: "none" }));
          const line = make("tr");
          for (const column of columns) {
            const cell = column.isHeader ? make("th", { scope: "row" }) : make("td");
            if (column.className) cell.className = column.className;
            column.make(cell, row);
            line.append(cell);
          }
          return line;
        },
        (line, row) => {
          if (row) columns.forEach((column, index) => column.update(line.cells[index], row));
          else setText(line.firstChild, emptyText);
        },
      );
    };
  };

  const showServices = setUpTable(byId("services-table"), SERVICE_COLUMNS, "services");
  const showBackends = setUpTable(byId("backends-table"), BACKEND_COLUMNS, "backends");
  const showDrops = setUpTable(byId("drops-table"), DROP_COLUMNS, "");

  const setUpPager = (pager, what) => {
    const previous = make("button", { type: "button" }, "Previous");
    const next = make("button", { type: "button" }, "Next");
    const text = make("span");
    let page = 0;
    previous.addEventListener("click", () => change({ [`${what}_page`]: String(page - 1) }));
    next.addEventListener("click", () => change({ [`${what}_page`]: String(page + 1) }));
    pager.append(previous, text, next);
    return (shown) => {
      page = shown.page;
      setHidden(pager, shown.pages < 2);
      setText(text, `Page ${shown.page + 1} of ${shown.pages}`);
      previous.disabled = shown.page === 0;
      next.disabled = shown.page >= shown.pages - 1;
    };
  };
  const pageServices = setUpPager(byId("services-pager"), "services");
  const pageBackends = setUpPager(byId("backends-pager"), "backends");

  // ---- the rest of the page

  const tiles = (shown) => {
    const { total, counts, connections, max_connections: most } = shown;
    const rateTile = (title, key, write) => {
      const values = total[key];
      const [value, unit] = values.length ? write(last(values)).split(/(?<=[\d.]) ?(?=[^\d.])/) : ["–", ""];
      return { key, title, value, unit, values };
    };
    const share = connections === null ? "" : `, ${((100 * connections) / most).toFixed(connections > most / 10 ? 0 : 1)} % in use`;
    return [
      {
        key: "connections", title: "Connections", value: whole(connections),
        note: `of ${short(most)}${share}`, isBad: connections > 0.8 * most,
      },
      rateTile("Opened", "opened", perSecond),
      rateTile("Traffic", "bytes", bits),
      rateTile("Packets", "packets", perSecond),
      rateTile("Drops", "drops", perSecond),
      {
        key: "backends", title: "Backends", value: whole(counts.backends),
        note: counts.unhealthy ? `${whole(counts.unhealthy)} unhealthy` : `in ${plural(counts.services, "service")}`,
        isBad: counts.unhealthy > 0,
      },
    ];
  };

  const showTiles = (shown) => reconcile(
    byId("tiles"), tiles(shown), (tile) => tile.key,
    (tile) => make("div", { class: "tile" },
      make("dt", {}, tile.title),
      make("dd", { class: "value" }, make("span"), " ", make("small")),
      tile.values ? make("dd", {}, makePlot(200, 28)) : make("dd")),
    (element, tile) => {
      const [, value, under] = element.children;
      setText(value.children[0], tile.value);
      setText(value.children[1], tile.unit || "");
      if (tile.values) draw(under.firstChild, tile.values);
      else {
        setText(under, tile.note);
        setClass(under, tile.isBad ? "note bad" : "note");
      }
    },
  );

  const showTroubles = (shown) => {
    const items = shown.troubles.map((each) => ({ ...each, key: each.text }));
    if (shown.more_troubles) items.push({ level: "warning", text: `and ${whole(shown.more_troubles)} more`, key: "more" });
    if (!items.length) items.push({ level: "fine", text: "Nothing needs a look", key: "fine" });
    reconcile(byId("troubles"), items, (each) => each.key,
      (each) => make("li", { class: `trouble ${each.level}` }),
      (element, each) => setText(element, each.text));
  };

  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const showEvents = (shown) => {
    const events = shown.events.length ? shown.events : [{ number: 0, level: "none", text: "Nothing yet" }];
    reconcile(byId("event-list"), events, (each) => each.number,
      (each) => {
        const item = make("li", { class: each.level });
        if (each.at) {
          const at = new Date(each.at * 1000);
          item.append(make("time", { datetime: at.toISOString(), title: at.toLocaleString() }, clock.format(at)));
        }
        const mark = each.level === "info" || each.level === "none" ? [] : [make("span", { class: "unseen" }, `${each.level}: `)];
        item.append(...mark, make("span", {}, each.text));
        return item;
      },
      () => {});
  };

  const show = (shown) => {
    now = shown.now;
    document.title = shown.counts.unhealthy ? `(${shown.counts.unhealthy}) ${shown.name}` : shown.name;
    setText(byId("name"), shown.name);
    setText(byId("daemon"), `LLB ${shown.version} · up ${ago(now - shown.started)}`);
    showTiles(shown);
    showTroubles(shown);
    setText(byId("services-count"), whole(shown.services.count));
    showServices(shown.services.rows, (row) => row.name, shown.services.order, "No service is configured");
    pageServices(shown.services);
    const { count, all } = shown.backends;
    setText(byId("backends-count"), count === all ? whole(all) : `${whole(count)} of ${whole(all)}`);
    showBackends(shown.backends.rows, (row) => `${row.service} ${row.backend}`, shown.backends.order,
      all ? "No backend is like that" : "There is no backend");
    pageBackends(shown.backends);
    showDrops(shown.drops, (row) => row.reason, "", "Nothing has been dropped");
    showEvents(shown);
  };

  // ---- asking

  const KEYS = ["services_page", "services_order", "backends_page", "backends_order", "service", "text", "only_troubled", "connections"];
  let timer = 0, asked = 0, wait = 2000;

  const connection = (className, text) => {
    setClass(byId("connection"), `pill ${className}`);
    setText(byId("connection"), text);
  };

  const ask = async () => {
    clearTimeout(timer);
    if (document.hidden) return;
    const number = ++asked;
    try {
      const response = await fetch(`page.json?${look}`, { signal: AbortSignal.timeout(PATIENCE), cache: "no-store" });
      if (!response.ok) throw new Error(`status ${response.status}`);
      const shown = await response.json();
      if (number !== asked) return; // A newer question is under way.
      wait = shown.pause * 1000;
      show(shown);
      connection("live", "live");
    } catch (error) {
      if (number !== asked) return;
      wait = RETRY;
      connection("lost", "the daemon does not answer");
    }
    timer = setTimeout(ask, wait);
  };

  /* Look at something else: keep it in the address, so that it can be passed on. */
  const change = (changes) => {
    for (const [key, value] of Object.entries(changes)) {
      if (value && value !== "0") look.set(key, value);
      else look.delete(key);
    }
    const query = look.toString();
    history.replaceState(null, "", `${location.pathname}${query ? `?${query}` : ""}${location.hash}`);
    showChoice();
    ask();
  };

  const orderBy = (what, column) => {
    const key = `${what}_order`, order = get(key);
    const isWord = ["name", "service", "backend", "health"].includes(column.order);
    const first = isWord ? column.order : `-${column.order}`;
    const second = isWord ? `-${column.order}` : column.order;
    change({ [key]: order === first ? second : first, [`${what}_page`]: "" });
  };

  const chooseService = (name) => {
    change({ service: name, backends_page: "" });
    byId("backends").scrollIntoView();
    byId("backends").focus({ preventScroll: true });
  };

  const showChoice = () => {
    const service = get("service"), button = byId("service");
    setHidden(button, !service);
    setText(button, service);
    button.setAttribute("aria-label", `Only ${service}: show the backends of every service`);
    if (document.activeElement !== byId("text")) byId("text").value = get("text");
    byId("only-troubled").checked = get("only_troubled") === "1";
    byId("connections").checked = get("connections") === "1";
  };

  byId("choose").addEventListener("submit", (event) => event.preventDefault());
  byId("text").addEventListener("input", (event) => change({ text: event.target.value, backends_page: "" }));
  byId("only-troubled").addEventListener("change", (event) => change({ only_troubled: event.target.checked ? "1" : "", backends_page: "" }));
  byId("connections").addEventListener("change", (event) => change({ connections: event.target.checked ? "1" : "" }));
  byId("service").addEventListener("click", () => {
    change({ service: "", backends_page: "" });
    byId("text").focus();
  });
  document.addEventListener("visibilitychange", ask);

  for (const key of [...look.keys()]) if (!KEYS.includes(key)) look.delete(key);
  showChoice();
  ask();
})();
