//! Join tokens. A token is `ID.SECRET`; the cluster keeps the id and a hash of the secret, with its expiry and
//! how often it may still be used.
//!
//! Must never: keep, log or show a secret after it was handed out, or compare one in a time that depends on
//! where it differs.

use std::fmt::Write as _;

use plasmavmc_types::TokenId;
use sha2::{Digest, Sha256};

use crate::api::{ApiError, Backend, TokenError};
use crate::clock::wall_ms;
use crate::store::{Token, Write, codec, keys};

const DEFAULT_VALID_S: u32 = 3600;
/// A token that is lost is no danger for ever.
const LONGEST_VALID_S: u32 = 7 * 24 * 3600;
const MOST_USES: u32 = 100;

/// A token that was just made. It is shown once.
#[derive(Debug)]
pub struct NewToken {
    pub text: String,
    pub expires_at_ms: u64,
}

pub async fn create(backend: &Backend, valid_s: u32, uses: u32) -> Result<NewToken, ApiError> {
    let valid_s = if valid_s == 0 { DEFAULT_VALID_S } else { valid_s };
    let uses = if uses == 0 { 1 } else { uses };
    require(valid_s <= LONGEST_VALID_S, "valid_s", valid_s, LONGEST_VALID_S)?;
    require(uses <= MOST_USES, "uses", uses, MOST_USES)?;
    let id = hex(&rand::random::<[u8; 6]>());
    let secret = hex(&rand::random::<[u8; 32]>());
    let expires_at_ms = wall_ms() + u64::from(valid_s) * 1000;
    let token = Token {
        secret_sha256: hash(&secret),
        expires_at_ms,
        uses_left: uses,
    };
    let key = TokenId::new(id.clone())?;
    let write = Write::new().expect_absent(keys::token(&key)).put_token(&key, &token);
    write.commit(&*backend.kv).await?;
    Ok(NewToken {
        text: format!("{id}.{secret}"),
        expires_at_ms,
    })
}

fn require(holds: bool, field: &str, value: u32, most: u32) -> Result<(), ApiError> {
    if holds {
        return Ok(());
    }
    Err(ApiError::Field {
        field: field.to_owned(),
        problem: format!("is {value}, at most {most} is allowed"),
    })
}

/// A token of this cluster that was shown with its secret.
#[derive(Debug)]
pub struct Presented {
    id: TokenId,
    token: Token,
    revision: u64,
}

/// Looks a token up. Whether it may still be used is another question.
pub async fn present(backend: &Backend, text: &str) -> Result<Presented, ApiError> {
    let (id, secret) = text.trim().split_once('.').ok_or(TokenError::Unknown)?;
    let id = TokenId::new(id).map_err(|_| TokenError::Unknown)?;
    let answer = backend.kv.get(keys::token(&id), Default::default()).await?;
    let stored = answer.kv.ok_or(TokenError::Unknown)?;
    let token = codec::decode_token(&stored.value).map_err(|error| ApiError::Internal(error.to_string()))?;
    if !equal(&hash(secret), &token.secret_sha256) {
        return Err(TokenError::Unknown.into());
    }
    if token.expires_at_ms <= wall_ms() {
        return Err(TokenError::Expired.into());
    }
    Ok(Presented {
        id,
        token,
        revision: stored.mod_revision,
    })
}

impl Presented {
    /// Takes one use off, in the transaction of what it is used for.
    pub fn spend(&self, write: Write) -> Result<Write, ApiError> {
        let uses_left = self.token.uses_left.checked_sub(1).ok_or(TokenError::UsedUp)?;
        let token = Token {
            uses_left,
            ..self.token
        };
        Ok(write
            .expect(keys::token(&self.id), self.revision)
            .put_token(&self.id, &token))
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Looks at every byte, whatever the first ones say.
fn equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
