//! Boards as Grafana's classic JSON, which Grafana 10 to 13 read, and as objects for the sidecar that loads them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::panel::{Colour, Kind, Panel, Query, Unit};
use super::{Annotation, Board, Row, VARIABLES, Variable, WIDTH};

/// The version of the model.
const SCHEMA: u8 = 39;

/// Between two looks for moments: those of Grafana itself, a minute, put a failover that far from the step it explains.
const ANNOTATION_STEP: &str = "15s";

/// Pixels of the columns of a table that are short, which leaves the others room for a path.
const VALUE_WIDTH: u16 = 170;
const NODE_WIDTH: u16 = 160;

/// So wide a panel has room for a legend beside its lines; below narrower ones a table hides most series.
const ROOM_FOR_LEGEND: u8 = 10;

/// Leads from one board to another, with what is chosen and the time.
const CHOICES: &str = "${__url_time_range}&${__all_variables}";

/// A board as Grafana reads it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    annotations: Value,
    description: &'static str,
    editable: bool,
    /// The crosshair of one panel is that of all.
    graph_tooltip: u8,
    id: Option<u32>,
    links: Value,
    panels: Vec<Placed>,
    refresh: &'static str,
    schema_version: u8,
    tags: [&'static str; 1],
    templating: Value,
    time: Value,
    timezone: &'static str,
    title: String,
    uid: &'static str,
    version: u8,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Placed {
    id: usize,
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    grid_pos: Place,
    #[serde(flatten)]
    content: Content,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Place {
    h: u8,
    w: u8,
    x: u8,
    y: u32,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content {
    Row {
        collapsed: bool,
        panels: [(); 0],
    },
    #[serde(rename_all = "camelCase")]
    Panel {
        description: String,
        datasource: Value,
        field_config: Value,
        options: Value,
        targets: Vec<Value>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        transformations: Vec<Value>,
    },
}

/// Makes the model of a board.
#[must_use]
pub fn dashboard(board: &Board) -> Dashboard {
    Dashboard {
        annotations: json!({"list": board.annotations.iter().map(annotation).collect::<Vec<_>>()}),
        description: board.description,
        editable: false,
        graph_tooltip: 1,
        id: None,
        links: json!([{
            "type": "dashboards", "title": "Leadline", "tags": ["leadline"], "icon": "external link",
            "asDropdown": false, "includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "", "url": "",
        }]),
        panels: placed(&board.rows),
        refresh: "30s",
        schema_version: SCHEMA,
        tags: ["leadline"],
        templating: json!({"list": variables(&board.variables)}),
        time: json!({"from": "now-3h", "to": "now"}),
        timezone: "browser",
        title: format!("Leadline / {}", board.title),
        uid: board.uid,
        version: 1,
    }
}

/// What the sidecar of Grafana looks for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMap {
    api_version: &'static str,
    kind: &'static str,
    metadata: Value,
    data: BTreeMap<String, String>,
}

/// Makes the object of a board from its text.
#[must_use]
pub fn config_map(uid: &str, text: &str) -> ConfigMap {
    let labels = json!({"app.kubernetes.io/name": "leadline", "grafana_dashboard": "1"});
    ConfigMap {
        api_version: "v1",
        kind: "ConfigMap",
        metadata: json!({"name": uid, "labels": labels}),
        data: [(format!("{uid}.json"), text.to_owned())].into(),
    }
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn variables(further: &[Variable]) -> Vec<Value> {
    let source = json!({
        "type": "datasource", "name": "datasource", "label": "Data Source", "query": "prometheus", "refresh": 1,
        "regex": "", "hide": 0, "includeAll": false, "multi": false, "options": [], "skipUrlSync": false, "current": {},
    });
    [source].into_iter().chain(VARIABLES.iter().chain(further).map(variable)).collect()
}

fn variable(variable: &Variable) -> Value {
    let Variable { name, label, family, within, all, is_multi } = variable;
    let query = format!("label_values({}{{{within}}}, {name})", family.name);
    let current = if *is_multi {
        json!({"selected": true, "text": ["All"], "value": ["$__all"]})
    } else {
        json!({"selected": true, "text": "All", "value": "$__all"})
    };
    json!({
        "type": "query", "name": name, "label": label, "datasource": source(), "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        // With the time range, so that what is gone can still be chosen.
        "refresh": 2,
        "includeAll": true, "allValue": all, "multi": is_multi, "sort": 1, "regex": "", "hide": 0,
        "options": [], "skipUrlSync": false, "current": current,
    })
}

fn annotation(annotation: &Annotation) -> Value {
    json!({
        "name": annotation.name, "datasource": source(), "enable": true, "hide": false,
        "expr": annotation.expression.to_string(), "iconColor": annotation.colour.as_str(),
        "titleFormat": annotation.title, "useValueForTime": false, "step": ANNOTATION_STEP,
    })
}

/// All panels in their places: a row is as wide as the board, and its panels are beside each other below it.
fn placed(rows: &[Row]) -> Vec<Placed> {
    let (mut found, mut y) = (Vec::new(), 0);
    for row in rows {
        let place = Place { h: 1, w: WIDTH, x: 0, y };
        let content = Content::Row { collapsed: false, panels: [] };
        found.push(Placed { id: found.len() + 1, kind: "row", title: row.title, grid_pos: place, content });
        y += 1;
        let mut x = 0;
        for panel in &row.panels {
            if x + panel.width > WIDTH {
                (x, y) = (0, y + u32::from(row.height));
            }
            let place = Place { h: row.height, w: panel.width, x, y };
            let (id, kind) = (found.len() + 1, kind(panel.kind));
            found.push(Placed { id, kind, title: panel.title, grid_pos: place, content: content_of(panel) });
            x += panel.width;
        }
        y += u32::from(row.height);
    }
    found
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Stat | Kind::Names => "stat",
        Kind::Lines | Kind::Bars => "timeseries",
        Kind::Timeline => "state-timeline",
        Kind::Table => "table",
    }
}

fn content_of(panel: &Panel) -> Content {
    let text = panel.text;
    Content::Panel {
        description: format!("{}\n\nNormal: {}\n\nOtherwise: {}", text.shows, text.normal, text.otherwise),
        datasource: source(),
        field_config: json!({"defaults": defaults(panel), "overrides": overrides(panel)}),
        options: options(panel),
        targets: panel.queries.iter().zip('A'..).map(|(query, id)| target(panel.kind, query, id)).collect(),
        transformations: if is_table(panel.kind) { vec![columns(panel)] } else { Vec::new() },
    }
}

/// Whether labels are columns: of names only one is shown.
const fn is_table(kind: Kind) -> bool {
    matches!(kind, Kind::Names | Kind::Table)
}

fn target(kind: Kind, query: &Query, id: char) -> Value {
    let is_instant = matches!(kind, Kind::Stat | Kind::Names | Kind::Table);
    json!({
        "refId": id.to_string(), "datasource": source(), "editorMode": "code",
        "expr": query.expression.to_string(), "legendFormat": query.legend,
        "instant": is_instant, "range": !is_instant,
        "format": if is_table(kind) { "table" } else { "time_series" },
    })
}

fn defaults(panel: &Panel) -> Value {
    let is_drawn = matches!(panel.kind, Kind::Lines | Kind::Bars);
    let more = panel.more.map(|(uid, label)| {
        let chosen = label.map(|label| format!("&var-{label}=${{__field.labels.{label}}}"));
        let url = format!("/d/{uid}?{CHOICES}{}", chosen.unwrap_or_default());
        json!({"title": format!("Open the board {uid}"), "url": url})
    });
    let mut defaults = json!({
        "color": {"mode": if is_drawn { "palette-classic" } else { "thresholds" }},
        "custom": custom(panel), "mappings": mappings(panel), "noValue": panel.nothing,
        "thresholds": {"mode": "absolute", "steps": steps(panel)}, "links": Vec::from_iter(more),
    });
    // Labels are no numbers, even where they look like some: a port of 6443 is not 6.44 K.
    if is_table(panel.kind) {
        defaults["unit"] = json!("string");
    } else {
        defaults["unit"] = json!(panel.unit.id());
        defaults["decimals"] = json!(decimals(panel));
    }
    defaults
}

/// What is said of the values of a table only, whose labels are fields as well and would be coloured like them.
fn overrides(panel: &Panel) -> Vec<Value> {
    let Some(name) = panel.value_name else { return Vec::new() };
    let coloured = if panel.thresholds.is_empty() { "auto" } else { "color-text" };
    let properties = json!([
        {"id": "unit", "value": panel.unit.id()},
        {"id": "decimals", "value": decimals(panel)},
        {"id": "custom.cellOptions", "value": {"type": coloured}},
        {"id": "custom.width", "value": VALUE_WIDTH},
    ]);
    let node = json!([{"id": "custom.width", "value": NODE_WIDTH}]);
    let of =
        |name, properties| json!({"matcher": {"id": "byName", "options": name}, "properties": properties});
    vec![of(name, properties), of("node", node)]
}

/// How many are shown; Grafana chooses where there is nothing said. Of durations it is how many smaller units follow.
const fn decimals(panel: &Panel) -> Option<u8> {
    match (panel.unit, panel.kind) {
        // The increase of a counter is no whole number, but what happened is.
        (Unit::Count, _) | (Unit::Of(_), Kind::Stat) => Some(0),
        // Sixty days are not the same as one month.
        (Unit::Duration, _) => Some(1),
        _ => None,
    }
}

/// Words for values, and the one for nothing: without a mapping it has the colour of the least value.
fn mappings(panel: &Panel) -> Vec<Value> {
    let words = panel.words.iter().enumerate().map(|(index, word)| {
        let text = json!({"text": word.text, "color": word.colour.as_str(), "index": index});
        (word.value.to_string(), text)
    });
    let words: serde_json::Map<String, Value> = words.collect();
    let mut found = Vec::new();
    if !words.is_empty() {
        found.push(json!({"type": "value", "options": words}));
    }
    if matches!(panel.kind, Kind::Stat | Kind::Names) {
        let result =
            json!({"text": panel.nothing, "color": Colour::Grey.as_str(), "index": panel.words.len()});
        found.push(json!({"type": "special", "options": {"match": "null+nan", "result": result}}));
    }
    found
}

fn steps(panel: &Panel) -> Vec<Value> {
    let further = panel.thresholds.iter().map(|(from, colour)| step(Some(*from), *colour));
    [step(None, panel.base)].into_iter().chain(further).collect()
}

fn step(from: Option<f64>, colour: Colour) -> Value {
    json!({"value": from, "color": colour.as_str()})
}

/// What only this kind of panel has of its fields.
fn custom(panel: &Panel) -> Value {
    let thresholds = if panel.thresholds.is_empty() { "off" } else { "dashed" };
    match panel.kind {
        Kind::Stat | Kind::Names => json!({}),
        Kind::Lines => json!({
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 5, "showPoints": "never", "spanNulls": false,
            "lineInterpolation": if panel.is_stepped { "stepAfter" } else { "linear" },
            "thresholdsStyle": {"mode": thresholds},
            "axisSoftMin": panel.is_from_zero.then_some(0), "axisSoftMax": panel.is_from_zero.then(|| soft_max(panel)),
        }),
        Kind::Bars => json!({
            "drawStyle": "bars", "lineWidth": 1, "fillOpacity": 60, "showPoints": "never",
            "thresholdsStyle": {"mode": thresholds}, "axisSoftMin": 0, "axisSoftMax": soft_max(panel),
        }),
        Kind::Timeline => json!({"fillOpacity": 80, "lineWidth": 0, "spanNulls": false}),
        Kind::Table => json!({"align": "auto", "filterable": true, "cellOptions": {"type": "auto"}}),
    }
}

/// What an axis reaches at least. Without it that of zeros alone goes to 100, or to 10000 %, and nothing looks small.
fn soft_max(panel: &Panel) -> f64 {
    let least = match panel.unit {
        Unit::Share => 0.01,
        Unit::Seconds => 0.0001,
        Unit::BytesPerSecond => 1000.0,
        Unit::Count | Unit::PerSecond | Unit::Duration | Unit::Of(_) => 1.0,
    };
    panel.thresholds.last().map_or(least, |(from, _)| *from)
}

fn legend(panel: &Panel) -> Value {
    if panel.width >= ROOM_FOR_LEGEND {
        json!({"displayMode": "table", "placement": "right", "showLegend": true, "calcs": ["lastNotNull", "max"]})
    } else {
        json!({"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []})
    }
}

fn stat(text_mode: &str, reduce: &Value) -> Value {
    json!({
        "colorMode": "background", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
        "textMode": text_mode, "reduceOptions": reduce,
    })
}

fn options(panel: &Panel) -> Value {
    let tooltip = json!({"mode": "multi", "sort": "desc"});
    match panel.kind {
        Kind::Stat => stat("auto", &json!({"calcs": ["lastNotNull"], "fields": "", "values": false})),
        Kind::Names => {
            // A stat in its mode for names shows nothing at all where there is none: so they are values.
            let labels: Vec<&str> = panel.queries.iter().flat_map(|query| labels_of(query.legend)).collect();
            let field = format!("/^{}$/", labels.last().copied().unwrap_or_default());
            let text_mode = if labels.len() > 1 { "value_and_name" } else { "value" };
            stat(text_mode, &json!({"calcs": [], "fields": field, "values": true}))
        }
        Kind::Lines | Kind::Bars => json!({"legend": legend(panel), "tooltip": tooltip}),
        Kind::Timeline => json!({
            "alignValue": "left", "mergeValues": true, "rowHeight": 0.85, "showValue": "auto", "tooltip": tooltip,
            // For what is too short to have its word in it.
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
        }),
        Kind::Table => {
            let order = panel.value_name.map(|name| json!({"displayName": name, "desc": false}));
            json!({"showHeader": true, "cellHeight": "sm", "sortBy": Vec::from_iter(order)})
        }
    }
}

/// The labels as columns in the order of the legend, then the value if it has a name.
fn columns(panel: &Panel) -> Value {
    let labels: Vec<&str> = panel.queries.iter().flat_map(|query| labels_of(query.legend)).collect();
    let places: BTreeMap<&str, usize> = labels.iter().copied().chain(["Value"]).zip(0..).collect();
    let names: BTreeMap<&str, &str> = panel.value_name.iter().map(|name| ("Value", *name)).collect();
    let hidden =
        json!({"Time": true, "cluster": !labels.contains(&"cluster"), "Value": panel.value_name.is_none()});
    json!({"id": "organize", "options": {"excludeByName": hidden, "indexByName": places, "renameByName": names}})
}

/// The labels that a legend names.
pub(super) fn labels_of(legend: &str) -> Vec<&str> {
    legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).collect()
}
