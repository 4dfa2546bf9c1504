//! Traces (OpenTelemetry): what became of a request, from its arrival over its place in the log to the first frame that
//! tells of it, on every pod. `traceparent` travels in the event.
//!
//! Without a collector nothing is made, and events stay as they came. With one, an entry that is not sampled costs each
//! pod a look at its envelope, and nothing per receiver. Never anything of an event's content: types and places only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

mod export;
mod parent;

pub use export::PrepareTraces;
pub(crate) use parent::Parent;

use crate::config::TraceConfig;
use crate::log::Entry;

/// How long what is left may take to be sent when the pod stops.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// Makes spans, or none; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    on: Option<Arc<On>>,
}

#[derive(Debug)]
struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

tokio::task_local! {
    /// What is published by this task belongs to it.
    static CURRENT: Current;
}

#[derive(Clone, Debug)]
struct Current {
    on: Arc<On>,
    parent: Parent,
}

impl Traces {
    /// Traces as the settings say, of the pod with this name. Called within the runtime that sends them.
    pub fn start(config: &TraceConfig, pod: &str) -> Result<Self, PrepareTraces> {
        let Some(provider) = export::provider(config, pod)? else { return Ok(Self::default()) };
        let tracer = provider.tracer("nexus");
        Ok(Self { on: Some(Arc::new(On { provider, tracer })) })
    }

    /// Whether anything is traced.
    pub(crate) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Begins a piece of work that may publish, such as a request; nothing when nothing is traced.
    pub(crate) fn begin(&self, name: String, parent: Option<Parent>) -> Option<Work> {
        let on = self.on.clone()?;
        let span = on.span(name.into(), SpanKind::Server, parent, None);
        // Events go on from the span if it is kept; else from where the caller was, who may keep the trace.
        let own = Parent::of_span(span.span_context());
        let parent = if own.sampled { Some(own) } else { parent };
        Some(Work { current: parent.map(|parent| Current { on, parent }), span })
    }

    /// Tells of the entries that were given their places, by a statement that began at this time.
    pub(crate) fn stamped(&self, entries: &[Arc<Entry>], begun: SystemTime) {
        let Some(on) = &self.on else { return };
        for entry in entries {
            if let Some(parent) = sampled(entry) {
                let mut span = on.span("stamp".into(), SpanKind::Internal, Some(parent), Some(begun));
                describe(&mut span, entry);
            }
        }
    }

    /// Begins the delivery of an entry to the connections of this pod. It ends with the first frame that tells of it.
    pub(crate) fn deliver(&self, entry: &Entry) {
        let Some(on) = &self.on else { return };
        if let Some(parent) = sampled(entry) {
            entry.delivery.0.get_or_init(|| {
                let mut span = on.span("deliver".into(), SpanKind::Consumer, Some(parent), None);
                describe(&mut span, entry);
                Box::new(Mutex::new(Some(span)))
            });
        }
    }

    /// Sends what is left. A collector that is away is not waited for for long.
    pub(crate) async fn stop(&self) {
        let Some(on) = self.on.clone() else { return };
        let stopped = tokio::task::spawn_blocking(move || on.provider.shutdown_with_timeout(STOP_DEADLINE));
        if !matches!(stopped.await, Ok(Ok(()))) {
            tracing::debug!("the last traces were not sent");
        }
    }
}

/// The trace of an entry, if it is kept.
fn sampled(entry: &Entry) -> Option<Parent> {
    Parent::of_event(&entry.encoded).filter(|parent| parent.sampled)
}

fn describe(span: &mut Span, entry: &Entry) {
    span.set_attribute(KeyValue::new("nexus.log.seq", entry.seq));
    span.set_attribute(KeyValue::new("nexus.event.type", entry.event_type.to_string()));
}

impl On {
    fn span(
        &self,
        name: std::borrow::Cow<'static, str>,
        kind: SpanKind,
        parent: Option<Parent>,
        begun: Option<SystemTime>,
    ) -> Span {
        let mut builder = self.tracer.span_builder(name).with_kind(kind);
        builder.start_time = begun;
        let context = Context::new();
        let context = match parent {
            Some(parent) => context.with_remote_span_context(parent.span_context()),
            None => context,
        };
        self.tracer.build_with_context(builder, &context)
    }
}

impl Parent {
    fn of_span(context: &SpanContext) -> Self {
        Self {
            trace: u128::from_be_bytes(context.trace_id().to_bytes()),
            span: u64::from_be_bytes(context.span_id().to_bytes()),
            sampled: context.is_sampled(),
        }
    }

    fn span_context(self) -> SpanContext {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace, span) = (TraceId::from(self.trace), SpanId::from(self.span));
        SpanContext::new(trace, span, flags, true, TraceState::default())
    }
}

/// A piece of work under way. It is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    current: Option<Current>,
    span: Span,
}

impl Work {
    /// Runs it: the events that it publishes belong to it.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.current {
            Some(current) => CURRENT.scope(current.clone(), work).await,
            None => work.await,
        }
    }

    /// Notes something about it.
    pub(crate) fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(KeyValue::new(name, value));
    }
}

/// A step of the work of this task, if that is kept; it is over when the answer is dropped.
pub(crate) fn step(name: &'static str) -> Option<Step> {
    let begin = |current: &Current| {
        let parent = current.parent;
        parent.sampled.then(|| Step { _span: current.on.span(name.into(), SpanKind::Internal, Some(parent), None) })
    };
    CURRENT.try_with(begin).ok().flatten()
}

/// A step under way.
#[derive(Debug)]
pub(crate) struct Step {
    _span: Span,
}

/// What an event that this task publishes is marked with, if the work is traced.
pub(crate) fn mark() -> Option<String> {
    CURRENT.try_with(|current| current.parent.to_string()).ok()
}

/// The delivery of an entry by this pod: nothing for nearly all of them.
#[derive(Debug, Default)]
pub struct Delivery(std::sync::OnceLock<Box<Mutex<Option<Span>>>>);

impl Delivery {
    /// A frame tells of the entry; the first one ends the delivery.
    pub(crate) fn told(&self) {
        if let Some(span) = self.0.get() {
            drop(span.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}
