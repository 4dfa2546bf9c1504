//! Sends spans to a collector: OTLP over HTTP, in batches, from a thread of its own. What a collector that is away does
//! not take is dropped once the queue is full, and costs nobody anything.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use reqwest::redirect::Policy;
use tokio::runtime::Handle;

use crate::chain::Chain;
use crate::config::{TraceConfig, TraceSampler};

/// Spans that wait to be sent; more are dropped. Half a megabyte at most.
const QUEUE_SPANS_MAX: usize = 2_048;
/// Spans of one request.
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others.
const PERIOD: Duration = Duration::from_secs(1);
/// How long the collector may take.
const SEND_DEADLINE: Duration = Duration::from_secs(5);

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum PrepareTraces {
    /// The client for the collector could not be made.
    #[error("prepare the client for the collector of traces")]
    BuildClient(#[source] reqwest::Error),
    /// The address of the collector cannot be used.
    #[error("prepare the exporter of traces")]
    BuildExporter(#[source] ExporterBuildError),
}

/// What keeps the spans of the pod with this name until they are sent; nothing without a collector.
pub(super) fn provider(config: &TraceConfig, pod: &str) -> Result<Option<SdkTracerProvider>, PrepareTraces> {
    // An empty variable of the standard is one that is not set.
    let Some(endpoint) = config.endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) else { return Ok(None) };
    let client = reqwest::Client::builder().timeout(SEND_DEADLINE).redirect(Policy::none()).build();
    let client = client.map_err(PrepareTraces::BuildClient)?;
    let collector = Collector { client, runtime: Handle::current(), away: Arc::default() };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(collector)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(SEND_DEADLINE)
        .build()
        .map_err(PrepareTraces::BuildExporter)?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS_MAX)
        .with_max_export_batch_size(BATCH_SPANS_MAX)
        .with_scheduled_delay(PERIOD)
        .build();
    let resource = Resource::builder()
        .with_service_name("nexus")
        .with_attribute(KeyValue::new("service.instance.id", pod.to_owned()))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_sampler(sampler(config))
        .with_resource(resource)
        .build();
    Ok(Some(provider))
}

fn sampler(config: &TraceConfig) -> Sampler {
    let ratio = || Sampler::TraceIdRatioBased(config.ratio);
    let parent_based = |root| Sampler::ParentBased(Box::new(root));
    match config.sampler {
        TraceSampler::AlwaysOn => Sampler::AlwaysOn,
        TraceSampler::AlwaysOff => Sampler::AlwaysOff,
        TraceSampler::Traceidratio => ratio(),
        TraceSampler::ParentbasedAlwaysOn => parent_based(Sampler::AlwaysOn),
        TraceSampler::ParentbasedAlwaysOff => parent_based(Sampler::AlwaysOff),
        TraceSampler::ParentbasedTraceidratio => parent_based(ratio()),
    }
}

/// Reaches the collector by the client that Nexus has anyway. Its requests run in the runtime, while the thread that
/// asks for them waits.
#[derive(Clone, Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether it did not take what it was sent last: one line when that begins, and one when it ends.
    away: Arc<AtomicBool>,
}

impl Collector {
    async fn send(self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = async {
            let answer = self.client.execute(request.try_into()?).await?.error_for_status()?;
            let status = answer.status();
            let mut response = Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            Ok(response)
        };
        let sent: Result<_, reqwest::Error> = sent.await;
        match &sent {
            Ok(_) if self.away.swap(false, Ordering::AcqRel) => tracing::info!("the collector takes traces again"),
            Err(error) if !self.away.swap(true, Ordering::AcqRel) => {
                tracing::warn!(error = %Chain(error), "the collector takes no traces; they are dropped meanwhile");
            }
            Ok(_) | Err(_) => {}
        }
        sent.map_err(HttpError::from)
    }
}

impl HttpClient for Collector {
    fn send_bytes<'life, 'answer>(
        &'life self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'answer>>
    where
        'life: 'answer,
        Self: 'answer,
    {
        let sent = self.runtime.spawn(self.clone().send(request));
        Box::pin(async { sent.await? })
    }
}
