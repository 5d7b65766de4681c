//! A certificate authority, and what it signs.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::Error;
use crate::host_names::{ClientName, HostNames};

/// The validity of an authority: as long as a machine at home lasts. Its clients need not be visited before.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3653 * 86_400);
/// Certificates are valid from before they are made, for clients whose clock is behind.
const CLOCK_SKEW_PERIOD: Duration = Duration::from_secs(86_400);

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub certificate: String,
}

/// A certificate and its key, in PEM.
pub(crate) struct SignedPair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(host: &str, now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(Error::Sign)?;
        let mut params = params(&format!("Artel authority of {host}"), now, AUTHORITY_LIFETIME);
        // It signs certificates of machines and clients, and no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(Error::Sign)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// One that was stored.
    ///
    /// # Errors
    /// The texts are no certificate and no key.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Self { issuer, certificate: certificate.to_owned() })
    }

    /// Whether its certificate is of its key.
    pub(crate) fn owns_its_certificate(&self) -> bool {
        let key = self.issuer.key().public_key_raw();
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        certificate.is_ok_and(|der| der.windows(key.len()).any(|bytes| bytes == key))
    }

    /// Its key, in PEM.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for a daemon that is reached by these names.
    pub(crate) fn sign_server(
        &self,
        names: &HostNames,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<SignedPair, Error> {
        let mut params = params("Artel daemon", now, lifetime);
        params.subject_alt_names = subject_names(names)?;
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client: its common name is that of the token whose rights it has.
    pub(crate) fn sign_client(
        &self,
        name: &ClientName,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<SignedPair, Error> {
        self.sign(params(name.as_str(), now, lifetime), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<SignedPair, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(Error::Sign)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(Error::Sign)?;
        Ok(SignedPair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Without the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn params(common_name: &str, now: SystemTime, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    // In place of the name that the library gives.
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = (now - CLOCK_SKEW_PERIOD).into();
    params.not_after = (now + lifetime).into();
    params
}

fn subject_names(names: &HostNames) -> Result<Vec<SanType>, Error> {
    let dns = |name: &String| name.as_str().try_into().map(SanType::DnsName).map_err(Error::Sign);
    let addresses = names.addresses.iter().map(|address| Ok(SanType::IpAddress(*address)));
    names.names.iter().map(dns).chain(addresses).collect()
}
