//! Events as a body without end: JSON lines, or server-sent events for who asks for them.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, Response as HttpResponse, header},
};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::watch;

use super::{protect, types::Event};
use crate::resource::events::Subscription;

/// A stream that is quiet for this long sends a sign of life, so that a dead reader is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON object a line (`application/x-ndjson`); the sign of life is an empty line.
    JsonLines,
    /// `text/event-stream` of the HTML standard, with ids; the sign of life is a comment.
    ServerSent,
}

impl Form {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let wants = |value: &str| value.split(',').any(|media| media.trim().starts_with("text/event-stream"));
        match headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) {
            Some(accept) if wants(accept) => Form::ServerSent,
            _ => Form::JsonLines,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Form::JsonLines => "application/x-ndjson",
            Form::ServerSent => "text/event-stream",
        }
    }

    fn write(self, event: &Event) -> Bytes {
        // JSON holds no raw line break, so one line of data is always enough.
        let json = serde_json::to_string(event).unwrap_or_default();
        match self {
            Form::JsonLines => format!("{json}\n"),
            Form::ServerSent => format!("id: {}\nevent: {}\ndata: {json}\n\n", event.id, event.kind),
        }
        .into()
    }

    fn sign_of_life(self) -> Bytes {
        Bytes::from_static(match self {
            Form::JsonLines => b"\n",
            Form::ServerSent => b": here\n\n",
        })
    }
}

/// The answer that carries `events` until the reader leaves or the node stops.
pub(super) fn response(events: Subscription, form: Form, stopping: watch::Receiver<bool>) -> HttpResponse<Body> {
    let source = Source { events, form, stopping };
    let mut http = HttpResponse::new(Body::new(EventBody { step: Box::pin(source.step()) }));
    protect(&mut http, form.content_type());
    http
}

struct Source {
    events: Subscription,
    form: Form,
    stopping: watch::Receiver<bool>,
}

type Step = Pin<Box<dyn Future<Output = Option<(Bytes, Source)>> + Send>>;

impl Source {
    async fn step(mut self) -> Option<(Bytes, Source)> {
        let bytes = tokio::select! {
            biased;
            event = self.events.next() => self.form.write(&event?),
            _ = self.stopping.wait_for(|stop| *stop) => return None,
            () = tokio::time::sleep(KEEP_ALIVE) => self.form.sign_of_life(),
        };
        Some((bytes, self))
    }
}

struct EventBody {
    step: Step,
}

impl HttpBody for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.step.as_mut().poll(context).map(|step| {
            let (bytes, source) = step?;
            self.step = Box::pin(source.step());
            Some(Ok(Frame::data(bytes)))
        })
    }
}
