//! What a route answers, and the headers that every answer has.

use hyper::{
    HeaderMap, Response, StatusCode,
    body::Bytes,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use serde::Serialize;

use super::negotiate::Encoding;
use crate::metric::Format;

/// An answer without its transport.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    content_type: &'static str,
    extra: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    /// Plain text for people and probes.
    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::of(status, "text/plain; charset=utf-8", Bytes::from(body.into()))
    }

    /// A page.
    pub(super) fn html(body: String) -> Self {
        Self::of(StatusCode::OK, "text/html; charset=utf-8", Bytes::from(body))
    }

    /// JSON, ending in a line feed for the sake of terminals.
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Self::of(status, "application/json", Bytes::from(body))
            }
            Err(error) => {
                Self::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write JSON: {error}\n"))
            }
        }
    }

    /// An error of the API.
    pub(super) fn json_error(status: StatusCode, error: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": error }))
    }

    /// A page of metrics.
    pub(super) fn metrics(body: Bytes, format: Format, encoding: Encoding) -> Self {
        let content_type = match format {
            Format::Text004 => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics1 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        };
        let reply = Self::of(StatusCode::OK, content_type, body).with(VARY, "Accept, Accept-Encoding");
        match encoding {
            Encoding::Identity => reply,
            Encoding::Gzip => reply.with(CONTENT_ENCODING, "gzip"),
            Encoding::Zstd => reply.with(CONTENT_ENCODING, "zstd"),
        }
    }

    /// The answer to a method that changes something; nothing here can be changed.
    pub(super) fn method_not_allowed() -> Self {
        Self::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served\n").with(ALLOW, "GET, HEAD")
    }

    /// Tells the client that the connection ends with this answer.
    pub(super) fn closing(self) -> Self {
        self.with(CONNECTION, "close")
    }

    /// The response, with its body still to be wrapped.
    pub(super) fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.extra);
        response
    }

    fn of(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        Self { status, body, content_type, extra: Vec::new() }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.extra.push((name, HeaderValue::from_static(value)));
        self
    }
}
