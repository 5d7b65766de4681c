//! What is read of a certificate: for how long it is valid, and whose it is.

use std::fmt;
use std::time::{Duration, SystemTime};

use x509_parser::parse_x509_certificate;
use x509_parser::prelude::{ASN1Time, X509Certificate};

/// A certificate that ends within this is mentioned: time enough to renew one of ninety days.
const RENEWAL_WINDOW: Duration = Duration::from_secs(14 * 86_400);

/// A certificate that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read: {0}")]
pub struct CertificateError(String);

/// For how long a certificate is valid, seen from some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateValidity {
    /// It is, for long enough.
    Valid {
        /// Its end.
        until: String,
    },
    /// It is, for less than two weeks.
    EndsSoon {
        /// Its end.
        until: String,
    },
    /// It is not any more.
    Expired {
        /// Its end.
        since: String,
    },
    /// It is not yet.
    Future {
        /// Its beginning.
        from: String,
    },
}

impl CertificateValidity {
    /// Whether clients accept it, as far as its time goes.
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid { .. } | Self::EndsSoon { .. })
    }

    /// The validity of a certificate in DER.
    pub(crate) fn of(certificate: &[u8], now: SystemTime) -> Result<Self, CertificateError> {
        let certificate = parse(certificate)?;
        let validity = certificate.validity();
        let (from, until) = (validity.not_before, validity.not_after);
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        let is_before = |time: ASN1Time, moment: SystemTime| time.timestamp() < seconds(moment);
        Ok(if is_before(until, now) {
            Self::Expired { since: until.to_string() }
        } else if !is_before(from, now + Duration::from_secs(1)) {
            Self::Future { from: from.to_string() }
        } else if is_before(until, now + RENEWAL_WINDOW) {
            Self::EndsSoon { until: until.to_string() }
        } else {
            Self::Valid { until: until.to_string() }
        })
    }
}

impl fmt::Display for CertificateValidity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid { until } => write!(f, "the certificate is valid until {until}"),
            Self::EndsSoon { until } => write!(f, "the certificate is valid until {until}, which is soon"),
            Self::Expired { since } => write!(f, "the certificate expired on {since}"),
            Self::Future { from } => write!(f, "the certificate is not valid before {from}"),
        }
    }
}

/// The subject's common name in a certificate in DER, if it has one.
pub(crate) fn common_name(certificate: &[u8]) -> Option<String> {
    let certificate = parse(certificate).ok()?;
    certificate.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    let parsed = parse_x509_certificate(certificate).map_err(|error| CertificateError(error.to_string()))?;
    Ok(parsed.1)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(["desk.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        params.distinguished_name.push(DnType::CommonName, "ann");
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_validity_depends_on_the_moment() {
        const YEAR_DURATION: Duration = Duration::from_secs(366 * 86_400);
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800);
        let at = |moment| CertificateValidity::of(&certificate(), moment).unwrap();
        assert!(matches!(at(begin - Duration::from_secs(60)), CertificateValidity::Future { .. }));
        assert!(matches!(at(begin), CertificateValidity::Valid { .. }));
        assert!(matches!(at(begin + YEAR_DURATION - RENEWAL_WINDOW / 2), CertificateValidity::EndsSoon { .. }));
        let expired = at(begin + YEAR_DURATION + Duration::from_secs(1));
        assert!(!expired.is_valid() && expired.to_string().contains("2021"), "{expired}");
    }

    #[test]
    fn the_common_name_is_that_of_the_subject() {
        assert_eq!(common_name(&certificate()).as_deref(), Some("ann"));
        assert_eq!(common_name(b"no certificate"), None);
    }
}
