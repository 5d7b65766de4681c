//! A collector, to which spans are sent.

use std::error::Error as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_model::open_regular_file;
use artel_traces::{SendError, SpanSink};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::address::CollectorAddress;
use crate::error::Error;
use crate::headers::CollectorHeaders;

/// The collector must accept a connection within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval of HTTP/2 pings while a message is on its way, and the time to wait for their answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The most of a reason that is logged.
const MAX_REASON_CHARS: usize = 200;

/// The files that go with the address of a collector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectorFiles {
    /// The headers of each message, a secret.
    pub headers: Option<PathBuf>,
    /// The certificates to trust instead of those of the system, in PEM.
    pub ca: Option<PathBuf>,
}

/// A collector, to which spans are sent.
#[derive(Clone)]
pub struct Collector {
    client: TraceServiceClient<Channel>,
    headers: CollectorHeaders,
}

impl Collector {
    /// Reads the files and sets up the connection, which is made with the first message. Needs a runtime of tokio.
    ///
    /// # Errors
    /// A file cannot be read or used, or headers would leave this machine in the clear.
    pub fn open(address: &CollectorAddress, files: &CollectorFiles) -> Result<Self, Error> {
        let headers = files.headers.as_deref().map(CollectorHeaders::read).transpose()?.unwrap_or_default();
        if !headers.is_empty() && !address.is_encrypted() && !address.is_loopback() {
            return Err(Error::ExposedHeaders(address.clone()));
        }
        let trusted = files.ca.as_deref().map(read_certificates).transpose()?;
        let failed = |source| Error::Tls { address: address.clone(), source };
        let mut endpoint = Endpoint::from(address.uri().clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_INTERVAL);
        if address.is_encrypted() {
            let tls = match trusted {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint = endpoint.tls_config(tls).map_err(failed)?;
        }
        Ok(Self { client: TraceServiceClient::new(endpoint.connect_lazy()), headers })
    }
}

fn read_certificates(path: &Path) -> Result<Vec<u8>, Error> {
    let mut pem = Vec::new();
    let read = open_regular_file(path).and_then(|mut file| file.read_to_end(&mut pem));
    read.map_err(|source| Error::ReadCertificates { path: path.to_owned(), source })?;
    Ok(pem)
}

impl SpanSink for Collector {
    async fn send(&mut self, message: ExportTraceServiceRequest) -> Result<u64, SendError> {
        let mut request = Request::new(message);
        for (name, value) in self.headers.iter() {
            request.metadata_mut().insert(name, value);
        }
        let answer = self.client.export(request).await.map_err(|status| send_error(&status))?;
        let rejected = answer.into_inner().partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or_default())
    }
}

/// A status as OTLP wants it understood: which failures pass. What the collector itself says is not repeated, since it may quote the
/// headers.
fn send_error(status: &Status) -> SendError {
    let mut reason = format!("{:?}", status.code());
    let mut cause = status.source();
    while let Some(error) = cause {
        reason.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => SendError::Passing(reason),
        // A connection that broke, such as one that was closed before its answer.
        Code::Unknown | Code::Internal if status.source().is_some() => SendError::Passing(reason),
        _ => SendError::Refused(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_pass_as_otlp_says() {
        for (status, passes) in [
            (Status::unavailable("secret"), true),
            (Status::resource_exhausted("secret"), true),
            (Status::unauthenticated("secret"), false),
            (Status::invalid_argument("secret"), false),
            (Status::unimplemented("secret"), false),
        ] {
            let error = send_error(&status);
            assert_eq!(matches!(error, SendError::Passing(_)), passes, "{status:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_absent_collector_is_a_passing_failure_with_its_cause() {
        let address = "http://127.0.0.1:9".parse().unwrap();
        let mut collector = Collector::open(&address, &CollectorFiles::default()).unwrap();
        let error = collector.send(ExportTraceServiceRequest::default()).await.unwrap_err();
        assert!(matches!(&error, SendError::Passing(reason) if reason.contains("refused")), "{error}");
    }

    #[tokio::test]
    async fn headers_leave_this_machine_encrypted_alone() {
        let dir = tempfile::tempdir().unwrap();
        let headers = dir.path().join("headers");
        std::fs::write(&headers, "authorization: Bearer secret\n").unwrap();
        let open = |address: &str, ca: Option<PathBuf>| {
            let files = CollectorFiles { headers: Some(headers.clone()), ca };
            Collector::open(&address.parse().unwrap(), &files).map(|_| ())
        };
        assert!(open("http://127.0.0.1:4317", None).is_ok());
        let error = open("http://collector.example:4317", None).unwrap_err().to_string();
        assert!(error.contains("in the clear") && error.contains("https://") && !error.contains("secret"), "{error}");
        let error = open("https://collector.example:4317", Some(dir.path().join("none.pem"))).unwrap_err().to_string();
        assert!(error.contains("none.pem"), "{error}");
    }
}
