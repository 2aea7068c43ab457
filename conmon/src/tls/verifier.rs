//! How a client judges the server's certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{Identity, Role, facts, provider, role};

/// By which names a server may be who was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Its role alone: the conmond of the host of that name, wherever it is reached.
    Role,
    /// Its role, or a DNS name or address in its certificate.
    Any,
}

/// The configuration of a client that trusts `roots` and shows `identity`.
pub(crate) fn client_config(
    roots: RootCertStore,
    identity: Option<&Identity>,
    names: Names,
) -> Result<ClientConfig, Error> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier { roots, algorithms, names };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.key))))
        }
        None => config.with_no_client_auth(),
    };
    // Each connection is judged anew: a certificate that has ended since is noticed.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Whether a client that trusts `roots` would take `identity` for a server's, now.
pub fn judge_server(identity: &Identity, roots: &RootCertStore) -> Result<(), Error> {
    let algorithms = provider().signature_verification_algorithms;
    let (end_entity, intermediates) =
        identity.key.cert.split_first().ok_or(Error::NoCertificatesPresented)?;
    let certificate = ParsedCertificate::try_from(end_entity)?;
    verify_server_cert_signed_by_trust_anchor(
        &certificate,
        roots,
        intermediates,
        UnixTime::now(),
        algorithms.all,
    )
}

/// The chain is judged as by the library's own verifier; only by what name a server may be called is ours.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    names: Names,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let wanted = server_name.to_str();
        let role = role(end_entity);
        if matches!(&role, Ok(Role::Host(name)) if *name == wanted) {
            return Ok(ServerCertVerified::assertion());
        }
        let by_name = match self.names {
            Names::Any => verify_server_name(&certificate, server_name).is_ok(),
            Names::Role => false,
        };
        if by_name {
            return Ok(ServerCertVerified::assertion());
        }
        let mut presented: Vec<String> = role.iter().map(ToString::to_string).collect();
        if self.names == Names::Any {
            presented.extend(facts(end_entity).map(|facts| facts.names).unwrap_or_default());
        }
        let expected = server_name.to_owned();
        Err(CertificateError::NotValidForNameContext { expected, presented }.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
