//! The page for people who open the port in a browser.

use crate::collector::runner::{Status, describe};

const STYLE: &str = "body{font:16px/1.5 sans-serif;margin:2em auto;max-width:50em;padding:0 1em}\
                     table{border-collapse:collapse}td,th{text-align:left;padding:.2em 1em .2em 0}";

const LINKS: [(&str, &str); 4] = [
    ("/metrics", "metrics for Prometheus"),
    ("/api/v1/events", "what happened, as JSON; since=N, limit=N, follow=true"),
    ("/readyz", "whether everything has started"),
    ("/healthz", "whether the process answers"),
];

/// Renders the page.
pub(super) fn render(version: &str, collectors: &[Status]) -> String {
    let links = LINKS.map(|(path, what)| format!("<li><a href=\"{path}\">{path}</a> {what}</li>\n")).concat();
    let rows: String = collectors.iter().map(render_row).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Leadline</title>\
         <style>{STYLE}</style></head><body>\n<h1>Leadline</h1>\n<p>Version {}</p>\n<ul>\n{links}</ul>\n\
         <table><tr><th>collector</th><th>support</th><th>reason</th><th>last run</th></tr>\n{rows}</table>\n\
         </body></html>\n",
        escape(version)
    )
}

fn render_row(status: &Status) -> String {
    let (level, reason) = describe(&status.support);
    let outcome = status.failure.as_deref().map_or_else(String::new, |cause| format!("failed: {cause}"));
    let cells = [status.name, level, reason, &outcome].map(|cell| format!("<td>{}</td>", escape(cell)));
    format!("<tr>{}</tr>\n", cells.concat())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::Support;

    #[test]
    fn rows_name_the_cause_and_escape_it() {
        let failure = Some("open <x>: denied".to_owned());
        let page =
            render("1.2", &[Status { name: "overlay", support: Support::Degraded("host-gw"), failure }]);
        assert!(page.contains(
            "<tr><td>overlay</td><td>degraded</td><td>host-gw</td><td>failed: open &lt;x&gt;: denied</td></tr>"
        ));
        assert!(page.contains("Version 1.2"));
    }
}
