//! What a request must be before anybody looks at what it asks.

use std::{str::FromStr, time::Duration};

use axum::{
    body::Body,
    extract::Request as HttpRequest,
    http::{HeaderMap, Method, header, request::Parts},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use meshwork_protocol::{
    limits::REQUEST_BODY,
    resource::{Request, ResourceParseError, ResourcePath, Verb},
};
use serde_json::{Map, Value};

use crate::resource::ResourceError;

/// Checks a request and translates it; the query of a GET becomes the fields of its body.
pub(super) async fn admit(http: HttpRequest, body_timeout: Duration) -> Result<Request, ResourceError> {
    let (parts, body) = http.into_parts();
    refuse_browsers(&parts.headers)?;
    let verb = verb(&parts.method)?;
    let path = ResourcePath::from_str(parts.uri.path()).map_err(bad_path)?;
    let bytes = match verb {
        Verb::Get => query_as_json(parts.uri.query(), &parts.headers)?,
        _ => {
            require_json(&parts)?;
            read_body(&parts.headers, body, body_timeout).await?
        }
    };
    Request::new(verb, path, bytes).map_err(|error| match error {
        ResourceParseError::BodyTooLong { .. } => too_long(),
        other => bad_path(other),
    })
}

/// A browser sends these with what a foreign page asks of it; no program that uses the socket does.
fn refuse_browsers(headers: &HeaderMap) -> Result<(), ResourceError> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key(header::REFERER) {
        return Err(ResourceError::new(
            403,
            "origin_rejected",
            "Requests that a web page makes are refused here.",
            "Send the request without the headers Origin and Referer.",
        ));
    }
    Ok(())
}

fn verb(method: &Method) -> Result<Verb, ResourceError> {
    method.as_str().parse().map_err(|_| {
        ResourceError::new(
            405,
            "wrong_verb",
            format!("The method {method} is not known here."),
            "Use GET, POST, PUT or DELETE.",
        )
    })
}

fn require_json(parts: &Parts) -> Result<(), ResourceError> {
    let is_json = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"));
    if is_json {
        return Ok(());
    }
    Err(ResourceError::new(
        415,
        "not_json",
        format!("{} is only taken with a JSON body.", parts.method),
        "Send the header Content-Type: application/json.",
    ))
}

async fn read_body(headers: &HeaderMap, body: Body, timeout: Duration) -> Result<Vec<u8>, ResourceError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|len| len > REQUEST_BODY as u64) {
        return Err(too_long());
    }
    match tokio::time::timeout(timeout, Limited::new(body, REQUEST_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(ResourceError::bad_request("The body broke off.", "Send the request again.")),
        Err(_) => Err(ResourceError::new(
            408,
            "too_slow",
            format!("The body did not come within {} seconds.", timeout.as_secs()),
            "Send the request again.",
        )),
    }
}

/// `a=1&b=x` as `{"a":1,"b":"x"}`. `Last-Event-ID`, which a reconnecting event stream sends, counts as `since`.
fn query_as_json(query: Option<&str>, headers: &HeaderMap) -> Result<Vec<u8>, ResourceError> {
    let mut fields = Map::new();
    if let Some(last) = headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        fields.insert("since".to_owned(), query_value(last));
    }
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            ResourceError::bad_request(
                format!("The query field {pair:?} has no value."),
                "Write the query as name=value&name=value.",
            )
        })?;
        fields.insert(name.to_owned(), query_value(value));
    }
    if fields.is_empty() {
        return Ok(Vec::new());
    }
    Ok(Value::Object(fields).to_string().into_bytes())
}

fn query_value(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
}

fn too_long() -> ResourceError {
    ResourceError::new(
        413,
        "too_long",
        format!("The body has more than {REQUEST_BODY} bytes."),
        "Commands are short; content of files does not travel this way.",
    )
}

fn bad_path(error: ResourceParseError) -> ResourceError {
    ResourceError::bad_request(
        format!("The address is refused: {error}."),
        "Percent-encode names, and use none with slashes or control characters.",
    )
}
