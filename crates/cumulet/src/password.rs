//! Passwords: made, and stored as salted hashes.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use zeroize::Zeroizing;

/// Rounds for what people choose; stored hashes say how many they had.
const ROUNDS_CHOSEN: u32 = 600_000;
/// Rounds for what [`generate`] made: nobody tries 130 bits, however fast a try is.
const ROUNDS_GENERATED: u32 = 1_000;
const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;

/// 26 letters and digits: 130 bits.
///
/// # Errors
/// When the system gives no random bytes.
pub(crate) fn generate() -> anyhow::Result<Zeroizing<String>> {
    // 32 characters, none of which is taken for another, so that each takes 5 bits of a byte.
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = Zeroizing::new([0u8; 26]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice())
        .map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    Ok(Zeroizing::new(
        bytes
            .iter()
            .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
            .collect(),
    ))
}

/// The stored form of a password that somebody chose.  Takes a good part of a second.
///
/// # Errors
/// When the system gives no random bytes.
pub(crate) fn hash_chosen(password: &str) -> anyhow::Result<String> {
    hash(password, ROUNDS_CHOSEN)
}

/// The stored form of a password that [`generate`] made.
///
/// # Errors
/// When the system gives no random bytes.
pub(crate) fn hash_generated(password: &str) -> anyhow::Result<String> {
    hash(password, ROUNDS_GENERATED)
}

/// `pbkdf2-sha256$rounds$salt$hash`, salt and hash in hex.
fn hash(password: &str, rounds: u32) -> anyhow::Result<String> {
    let mut salt = [0; SALT_LEN];
    aws_lc_rs::rand::fill(&mut salt)
        .map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    let mut out = [0; HASH_LEN];
    let count = NonZeroU32::new(rounds).expect("both numbers of rounds are above zero");
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        count,
        &salt,
        password.as_bytes(),
        &mut out,
    );
    Ok(format!(
        "pbkdf2-sha256${rounds}${}${}",
        hex::encode(salt),
        hex::encode(out)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_right(password: &str, stored: &str) -> bool {
        let words: Vec<&str> = stored.split('$').collect();
        let rounds = words[1].parse().unwrap();
        let (salt, hash) = (
            hex::decode(words[2]).unwrap(),
            hex::decode(words[3]).unwrap(),
        );
        pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            &salt,
            password.as_bytes(),
            &hash,
        )
        .is_ok()
    }

    #[test]
    fn a_hash_tells_its_password_from_others() {
        let password = generate().unwrap();
        let stored = hash_generated(&password).unwrap();
        assert!(is_right(&password, &stored) && !is_right("other", &stored));
        assert_ne!(stored, hash_generated(&password).unwrap());
        assert!(!stored.contains(password.as_str()));
    }
}
