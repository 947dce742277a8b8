//! From a request to a reply.

use std::time::Duration;

use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    body::Bytes,
    header::{ACCEPT, ACCEPT_ENCODING, HeaderName},
};
use tokio::sync::watch;

use super::{
    Content, Limits,
    compress::compress,
    events::{Query, parse_query},
    flight::Flights,
    landing,
    negotiate::{Encoding, decide_encoding, decide_format},
    page::Page,
    reply::Reply,
};
use crate::metric::Format;

/// The fixed paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Landing,
    Metrics,
    Healthz,
    Readyz,
    Events,
    Unknown,
}

impl Route {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/" => Self::Landing,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Healthz,
            "/readyz" => Self::Readyz,
            "/api/v1/events" => Self::Events,
            _ => Self::Unknown,
        }
    }

    /// The `path` label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Landing => "/",
            Self::Metrics => "/metrics",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::Events => "/api/v1/events",
            Self::Unknown => "other",
        }
    }

    /// Time that a request of this route may take beside the usual.
    pub(super) fn extra_time(self, limits: &Limits) -> Duration {
        if self == Self::Events { limits.follow } else { Duration::ZERO }
    }
}

/// Everything that answering needs.
pub(super) struct Router {
    pub(super) content: Content,
    pub(super) limits: Limits,
    /// Turns true when the agent stops; followers are then let go.
    pub(super) stopping: watch::Receiver<bool>,
    pages: Flights<(Format, Encoding), Bytes>,
}

impl Router {
    pub(super) fn new(content: Content, limits: Limits, stopping: watch::Receiver<bool>) -> Self {
        Self { content, limits, stopping, pages: Flights::new() }
    }

    /// Answers a request whose body nobody reads.
    pub(super) async fn answer(
        &self,
        route: Route,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Reply {
        if method != Method::GET && method != Method::HEAD {
            return Reply::method_not_allowed();
        }
        match route {
            Route::Landing => {
                Reply::html(landing::render(self.content.version, &self.content.runner.status()))
            }
            Route::Metrics => self.metrics(headers).await,
            Route::Healthz => Reply::text(StatusCode::OK, "ok\n"),
            Route::Readyz => self.readyz(),
            Route::Events => self.events(uri.query().unwrap_or_default()).await,
            Route::Unknown => not_found(uri.path()),
        }
    }

    async fn metrics(&self, headers: &HeaderMap) -> Reply {
        let format = decide_format(values(headers, ACCEPT));
        let encoding = decide_encoding(values(headers, ACCEPT_ENCODING));
        let runner = self.content.runner.clone();
        let make = move || {
            compress(Page::make(runner, format), encoding).unwrap_or_else(|error| {
                tracing::error!(err = %error, "Page could not be compressed.");
                Bytes::new()
            })
        };
        match self.pages.join((format, encoding), make).await {
            // A page is never empty: the runner itself has something to say.
            Some(page) if !page.is_empty() => Reply::metrics(page, format, encoding),
            _ => Reply::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the page could not be rendered; see the log\n",
            ),
        }
    }

    fn readyz(&self) -> Reply {
        let missing = self.content.readiness.missing();
        if missing.is_empty() {
            return Reply::text(StatusCode::OK, "ready\n");
        }
        Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", ")))
    }

    async fn events(&self, query: &str) -> Reply {
        let query = match parse_query(query) {
            Ok(query) => query,
            Err(mistake) => return Reply::json_error(StatusCode::BAD_REQUEST, &mistake),
        };
        if query.follow {
            self.wait(query).await;
        }
        Reply::json(StatusCode::OK, &self.content.timeline.since(query.since, query.limit))
    }

    /// Waits for an event that the follower has not seen, for the end of its patience, or for the agent to stop.
    async fn wait(&self, query: Query) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = self.content.timeline.wait_beyond(query.since) => {}
            () = tokio::time::sleep(self.limits.follow) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }
}

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

fn not_found(path: &str) -> Reply {
    if path.starts_with("/api/") {
        return Reply::json_error(StatusCode::NOT_FOUND, "no such resource; there is /api/v1/events");
    }
    Reply::text(StatusCode::NOT_FOUND, "not found; see /, /metrics, /healthz, /readyz, /api/v1/events\n")
}
