//! What Grafana and its readers ask of boards, as rules.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::board::grafana::labels_of;
use crate::{boards, render};

fn json(board: &Board) -> Value {
    serde_json::to_value(dashboard(board)).unwrap()
}

/// Every panel with the name of its board.
fn panels() -> Vec<(&'static str, Panel)> {
    let all = boards().into_iter().flat_map(|board| {
        let panels = board.rows.into_iter().flat_map(|row| row.panels);
        panels.map(move |panel| (board.uid, panel))
    });
    all.collect()
}

/// The names behind the dollar signs of a text, Grafana's own left out.
fn read_variables(text: &str) -> BTreeSet<&str> {
    let word = |rest: &'_ str| rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let all = text.split('$').skip(1).map(|rest| &rest[..word(rest)]);
    all.filter(|name| !name.starts_with("__") && !name.starts_with(|c: char| c.is_numeric())).collect()
}

#[test]
fn expressions_ask_for_what_there_is() {
    for (board, panel) in panels() {
        assert!(!panel.queries.is_empty(), "{board}, {}", panel.title);
        for query in &panel.queries {
            assert_eq!(query.expression.faults(), &[] as &[String], "{board}, {}", panel.title);
        }
    }
    for annotation in boards().iter().flat_map(|board| &board.annotations) {
        assert_eq!(annotation.expression.faults(), &[] as &[String], "{}", annotation.name);
        for label in labels_of(annotation.title) {
            assert!(annotation.expression.labels().contains(label), "{}: {label}", annotation.name);
        }
    }
}

#[test]
fn legends_tell_all_series_of_a_cluster_apart() {
    for (board, panel) in panels() {
        let mut legends = BTreeSet::new();
        for query in &panel.queries {
            let named: BTreeSet<&str> =
                labels_of(query.legend).into_iter().filter(|label| *label != "cluster").collect();
            let has: BTreeSet<&str> =
                query.expression.labels().iter().copied().filter(|label| *label != "cluster").collect();
            assert_eq!(named, has, "{board}, {}: {}", panel.title, query.expression);
            assert!(legends.insert(query.legend), "{board}, {}: two queries have one name", panel.title);
        }
        assert!(panel.kind != Kind::Table || panel.queries.len() == 1, "{board}, {}", panel.title);
    }
}

#[test]
fn panels_explain_themselves() {
    for (board, panel) in panels() {
        let Text { shows, normal, otherwise } = panel.text;
        for text in [shows, normal, otherwise] {
            assert!(text.ends_with(['.', '?']) && !text.contains("  "), "{board}, {}: {text}", panel.title);
        }
        assert!(!panel.title.is_empty() && !panel.title.ends_with('.'), "{board}: {}", panel.title);
    }
}

#[test]
fn a_timeline_and_a_verdict_have_words_for_their_values() {
    for (board, panel) in panels() {
        let values: BTreeSet<i32> = panel.words.iter().map(|word| word.value).collect();
        assert_eq!(values.len(), panel.words.len(), "{board}, {}", panel.title);
        assert!(panel.kind != Kind::Timeline || !values.is_empty(), "{board}, {}", panel.title);
        let thresholds: Vec<f64> = panel.thresholds.iter().map(|(from, _)| *from).collect();
        assert!(thresholds.is_sorted(), "{board}, {}: {thresholds:?}", panel.title);
    }
}

#[test]
fn the_first_row_says_in_a_word_how_each_layer_is_and_a_row_of_each_follows() {
    let overview = boards().remove(0);
    for verdict in &overview.rows[0].panels {
        let healthy = verdict.words.iter().find(|word| word.value == 0).unwrap();
        assert_eq!((verdict.kind, healthy.text), (Kind::Stat, "healthy"), "{}", verdict.title);
        assert!(verdict.words.len() > 1 && verdict.nothing == "not seen", "{}", verdict.title);
    }
    let verdicts: Vec<&str> = overview.rows[0].panels.iter().map(|panel| panel.title).collect();
    assert_eq!(verdicts, ["Path", "Tunnel", "Overlay", "Quorum", "Virtual addresses", "Pods"]);
    let layers: Vec<&str> =
        overview.rows[2..].iter().map(|row| row.title.split(':').next().unwrap()).collect();
    assert_eq!(layers, ["Path", "Tunnel", "Overlay", "Quorum", "Virtual addresses", "Pods"]);
}

#[test]
fn nothing_is_told_from_all_values_by_a_word_and_a_colour() {
    for (board, panel) in panels() {
        assert_ne!(panel.nothing, "no data", "{board}, {}: why is there none?", panel.title);
    }
    for board in boards() {
        let json = json(&board);
        for panel in json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "stat") {
            let mappings = panel["fieldConfig"]["defaults"]["mappings"].as_array().unwrap();
            let nothing = &mappings.iter().find(|one| one["type"] == "special").unwrap()["options"];
            assert_eq!(nothing["match"], "null+nan", "{panel:#}");
            assert_eq!(nothing["result"]["color"], Colour::Grey.as_str(), "{panel:#}");
        }
    }
}

#[test]
fn labels_of_a_table_have_neither_unit_nor_colour() {
    for board in boards() {
        let json = json(&board);
        for panel in json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "table") {
            let config = &panel["fieldConfig"];
            assert_eq!(config["defaults"]["unit"], "string", "{panel:#}");
            assert_eq!(config["defaults"]["custom"]["cellOptions"]["type"], "auto", "{panel:#}");
        }
    }
}

#[test]
fn identifiers_are_stable_and_unique() {
    let uids: Vec<_> = boards().iter().map(|board| board.uid).collect();
    assert_eq!(
        uids,
        ["leadline-overview", "leadline-path", "leadline-tunnel", "leadline-vip", "leadline-etcd"]
    );
    for board in boards() {
        let json = json(&board);
        assert_eq!((&json["uid"], &json["schemaVersion"]), (&board.uid.into(), &39.into()));
        assert_eq!((&json["id"], &json["editable"]), (&Value::Null, &false.into()));
        let panels = json["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len());
        let titles: BTreeSet<&str> = panels.iter().map(|panel| panel["title"].as_str().unwrap()).collect();
        assert_eq!(titles.len(), panels.len(), "{} has a title twice", board.uid);
    }
}

#[test]
fn a_tired_person_can_read_a_board() {
    for board in boards() {
        let count: usize = board.rows.iter().map(|row| row.panels.len()).sum();
        assert!(count <= MOST_PANELS, "{} has {count} panels", board.uid);
    }
}

#[test]
fn panels_fill_the_grid_and_do_not_overlap() {
    for board in boards() {
        let mut taken = BTreeSet::new();
        for panel in json(&board)["panels"].as_array().unwrap() {
            let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            assert!(place("x") + place("w") <= u64::from(WIDTH), "{}", panel["title"]);
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(taken.insert((x, y)), "{}, {}: on another panel", board.uid, panel["title"]);
                }
            }
        }
        let height = taken.iter().map(|(_, y)| y + 1).max().unwrap_or_default();
        let area = usize::try_from(height * u64::from(WIDTH)).unwrap();
        assert_eq!(taken.len(), area, "{} has holes", board.uid);
    }
}

#[test]
fn everything_is_asked_of_the_chosen_source() {
    for board in boards() {
        let json = json(&board);
        let panels = json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
        let targets = panels.clone().flat_map(|panel| panel["targets"].as_array().unwrap());
        let annotations = json["annotations"]["list"].as_array().unwrap();
        for asks in panels.clone().chain(targets).chain(annotations) {
            assert_eq!(asks["datasource"]["uid"], "${datasource}", "{asks:#}");
        }
        let variables = json["templating"]["list"].as_array().unwrap();
        let of_source: Vec<_> =
            variables.iter().filter(|variable| variable["type"] == "datasource").collect();
        assert_eq!((of_source.len(), &of_source[0]["name"]), (1, &"datasource".into()));
        for variable in variables.iter().filter(|variable| variable["type"] == "query") {
            assert_eq!(
                (&variable["refresh"], &variable["includeAll"]),
                (&2.into(), &true.into()),
                "{variable:#}"
            );
        }
    }
}

#[test]
fn expressions_read_the_choices_that_there_are() {
    assert_eq!(read_variables("a{b=~\"$b\"}[$__range] $1 $c_d"), ["b", "c_d"].into());
    for board in boards() {
        let known: BTreeSet<&str> =
            VARIABLES.iter().chain(&board.variables).map(|variable| variable.name).collect();
        for variable in VARIABLES.iter().chain(&board.variables) {
            assert!(
                variable.family.labels.contains(&variable.name)
                    || crate::expression::TARGET.contains(&variable.name)
            );
            assert!(read_variables(variable.within).is_subset(&known), "{}", variable.name);
        }
        for panel in board.rows.iter().flat_map(|row| &row.panels) {
            for text in panel.queries.iter().map(|query| query.expression.to_string()) {
                let read = read_variables(&text);
                assert!(read.is_subset(&known), "{}: {text}", panel.title);
                assert!(read.contains("cluster") && read.contains("job"), "{}: {text}", panel.title);
            }
        }
    }
}

#[test]
fn time_is_looked_back_on_as_grafana_says() {
    for (board, panel) in panels() {
        for text in panel.queries.iter().map(|query| query.expression.to_string()) {
            for window in text.split('[').skip(1).filter_map(|rest| rest.split(']').next()) {
                let is_fine = ["$__rate_interval", "$__range"].contains(&window);
                assert!(is_fine, "{board}, {}: {window}", panel.title);
            }
        }
    }
}

#[test]
fn links_lead_to_boards_and_to_choices_that_they_have() {
    let boards = boards();
    for (_, panel) in panels() {
        let Some((uid, label)) = panel.more else { continue };
        let board = boards.iter().find(|board| board.uid == uid).unwrap();
        let Some(label) = label else { continue };
        assert!(board.variables.iter().any(|variable| variable.name == label), "{}", panel.title);
        assert!(
            panel.queries.iter().all(|query| query.expression.labels().contains(label)),
            "{}",
            panel.title
        );
    }
}

#[test]
fn a_config_map_is_one_that_the_sidecar_loads_and_kubernetes_takes() {
    let files = render::files(&[], &boards(), "").unwrap();
    let text = |path: String| files.iter().find(|(found, _)| *found == path).unwrap().1.clone();
    for board in boards() {
        let object = text(format!("configmap/{}.yaml", board.uid));
        assert!(object.len() < 200 * 1024, "{} has {} bytes", board.uid, object.len());
        let object: serde_yaml_ng::Value = serde_yaml_ng::from_str(&object).unwrap();
        assert_eq!(object["metadata"]["labels"]["grafana_dashboard"], "1");
        let model = object["data"][format!("{}.json", board.uid)].as_str().unwrap();
        assert_eq!(model, text(format!("boards/{}.json", board.uid)));
    }
}
