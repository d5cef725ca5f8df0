//! The bearer tokens of the simulator: minted and checked with a key made at start.
//!
//! Shape as in `lightbits-api.md` section 5: header `kid` = `<scope>:<credential>`, claims `sub`,
//! `exp` and `roles` (`<scope>:<role>`) mandatory, `nbf` optional. The one deviation: ES256 instead
//! of RS256, because an RSA key takes seconds to make; clients carry tokens as opaque text.
//! Not covered: revocation, several credentials.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Lifetime that the vendor's command line gives tokens by default, in seconds (30 days).
pub const LIFETIME_S: i64 = 30 * 24 * 3600;
/// Longest token that is looked at, in bytes.
const TOKEN_MAX_BYTES: usize = 8 << 10;
const ALGORITHM: &str = "ES256";
const CREDENTIAL: &str = "lbaudit-sim";
/// The role that may do everything, in every project.
const CLUSTER_ADMIN: &str = "system:cluster-admin";

/// What a token says about its bearer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Who the bearer is.
    pub sub: String,
    /// First second at which the token is no longer valid, Unix time.
    pub exp: i64,
    /// First second at which the token is valid, Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// What the bearer may do: `<scope>:<role>`.
    pub roles: Vec<String>,
}

/// What a call does to the array, as far as permission goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Looks only.
    Read,
    /// Creates, changes or deletes.
    Write,
}

impl Claims {
    /// The administrator of `project` for `lifetime_s` seconds from now; a lifetime below zero
    /// makes a token that expired long ago.
    pub fn admin(project: &str, lifetime_s: i64) -> Claims {
        Claims {
            sub: format!("{project}-admin"),
            exp: now_unix_s().saturating_add(lifetime_s),
            nbf: None,
            roles: vec![format!("{project}:admin")],
        }
    }

    /// Whether the bearer may do everything.
    pub fn is_cluster_admin(&self) -> bool {
        self.roles.iter().any(|role| role == CLUSTER_ADMIN)
    }

    /// Whether the bearer may do `access` in `project`.
    pub fn allow(&self, project: &str, access: Access) -> bool {
        let by_role = |role: &String| match role.rsplit_once(':') {
            Some((scope, "admin")) => scope == project,
            Some((scope, "viewer")) => scope == project && access == Access::Read,
            _ => false,
        };
        self.is_cluster_admin() || self.roles.iter().any(by_role)
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// Why a token is not accepted; every one is HTTP 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not three base64url parts of JSON with the claims that must be there.
    #[error("token is malformed")]
    Malformed,
    /// It is signed with another key or algorithm.
    #[error("token signature is invalid")]
    Signature,
    /// Its time is over.
    #[error("token is expired")]
    Expired,
    /// Its time has not come.
    #[error("token is not valid yet")]
    NotYet,
}

/// The key cannot be made or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {0} the simulator's token key: the system's random source failed")]
pub struct KeyError(&'static str);

/// The key that signs and checks tokens; never leaves this process.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// A new random key.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn generate() -> Result<TokenKey, KeyError> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| KeyError("make"))?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
                .map_err(|_| KeyError("read"))?;
        Ok(TokenKey { pair, random })
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn mint(&self, claims: &Claims) -> Result<String, KeyError> {
        let scope = claims.roles.first().and_then(|role| role.rsplit_once(':'));
        let header = Header {
            alg: ALGORITHM.to_owned(),
            kid: format!("{}:{CREDENTIAL}", scope.map_or("system", |(scope, _)| scope)),
            typ: "JWT".to_owned(),
        };
        let mut token = format!("{}.{}", encode(&header)?, encode(claims)?);
        let signature =
            self.pair.sign(&self.random, token.as_bytes()).map_err(|_| KeyError("use"))?;
        token.push('.');
        BASE64URL.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The claims of `token` if this key signed it and its time is now.
    ///
    /// # Errors
    /// [`TokenError`] says which check failed; the signature is checked before any claim is read.
    pub fn verify(&self, token: &str, now_unix_s: i64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let signature = BASE64URL.decode(signature).map_err(|_| TokenError::Malformed)?;
        let header: Header = decode(header)?;
        if header.alg != ALGORITHM || !header.kid.ends_with(&format!(":{CREDENTIAL}")) {
            return Err(TokenError::Signature);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let claims: Claims = decode(claims)?;
        if claims.exp <= now_unix_s {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|from| now_unix_s < from) {
            return Err(TokenError::NotYet);
        }
        Ok(claims)
    }
}

/// Seconds since 1970 by this machine's clock.
pub fn now_unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn encode<T: Serialize>(part: &T) -> Result<String, KeyError> {
    // Two structs of strings and integers always serialise; the error is passed on all the same.
    serde_json::to_vec(part).map(|json| BASE64URL.encode(json)).map_err(|_| KeyError("use"))
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenError> {
    let json = BASE64URL.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn claims() -> Claims {
        let roles = vec!["default:admin".to_owned()];
        Claims { sub: "me".to_owned(), exp: NOW + 10, nbf: None, roles }
    }

    #[test]
    fn a_minted_token_is_accepted_with_its_claims() {
        let key = TokenKey::generate().unwrap();
        let token = key.mint(&claims()).unwrap();
        assert_eq!(key.verify(&token, NOW), Ok(claims()));
        let header = BASE64URL.decode(token.split('.').next().unwrap()).unwrap();
        assert_eq!(header, br#"{"alg":"ES256","kid":"default:lbaudit-sim","typ":"JWT"}"#);
    }

    #[test]
    fn a_token_is_valid_from_nbf_up_to_but_not_at_exp() {
        let key = TokenKey::generate().unwrap();
        let token = key.mint(&Claims { nbf: Some(NOW), ..claims() }).unwrap();
        assert_eq!(key.verify(&token, NOW - 1), Err(TokenError::NotYet));
        assert!(key.verify(&token, NOW).is_ok());
        assert!(key.verify(&token, NOW + 9).is_ok());
        assert_eq!(key.verify(&token, NOW + 10), Err(TokenError::Expired));
        let old = key.mint(&Claims::admin("default", -3600)).unwrap();
        assert_eq!(key.verify(&old, now_unix_s()), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_of_another_key_or_with_any_part_changed_is_refused() {
        let key = TokenKey::generate().unwrap();
        let stranger = TokenKey::generate().unwrap().mint(&claims()).unwrap();
        assert_eq!(key.verify(&stranger, NOW), Err(TokenError::Signature));

        let token = key.mint(&claims()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let longer = encode(&Claims { exp: NOW + 9999, ..claims() }).unwrap();
        let forged = format!("{}.{longer}.{}", parts[0], parts[2]);
        assert_eq!(key.verify(&forged, NOW), Err(TokenError::Signature));
        let none = BASE64URL.encode(r#"{"alg":"none","kid":"default:lbaudit-sim","typ":"JWT"}"#);
        let unsigned = format!("{none}.{}.", parts[1]);
        assert_eq!(key.verify(&unsigned, NOW), Err(TokenError::Signature));
    }

    #[test]
    fn text_that_is_no_token_is_malformed() {
        let key = TokenKey::generate().unwrap();
        for text in ["", "abc", "a.b", "a.b.c", "..", "é.é.é", &"x.".repeat(9000)] {
            assert_eq!(key.verify(text, NOW), Err(TokenError::Malformed), "{text:.20}");
        }
    }

    #[test]
    fn roles_bound_what_the_bearer_may_do() {
        let with = |role: &str| Claims { roles: vec![role.to_owned()], ..claims() };
        assert!(with("a:admin").allow("a", Access::Write));
        assert!(!with("a:admin").allow("b", Access::Read));
        assert!(with("a:viewer").allow("a", Access::Read));
        assert!(!with("a:viewer").allow("a", Access::Write));
        assert!(with("system:cluster-admin").allow("b", Access::Write));
        assert!(!with("a:").allow("a", Access::Read));
        assert!(!Claims { roles: vec![], ..claims() }.allow("a", Access::Read));
    }
}
