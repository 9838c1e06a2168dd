//! Passwords: made, and stored as salted hashes.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use zeroize::Zeroizing;

/// Rounds of new hashes; old ones say how many they had.
const ROUNDS: u32 = 100_000;
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

/// `pbkdf2-sha256$rounds$salt$hash`, salt and hash in hex.
///
/// # Errors
/// When the system gives no random bytes.
pub(crate) fn hash(password: &str) -> anyhow::Result<String> {
    let mut salt = [0; SALT_LEN];
    aws_lc_rs::rand::fill(&mut salt)
        .map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    let mut out = [0; HASH_LEN];
    let rounds = NonZeroU32::new(ROUNDS).expect("it is not zero");
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        &salt,
        password.as_bytes(),
        &mut out,
    );
    Ok(format!(
        "pbkdf2-sha256${ROUNDS}${}${}",
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
        let stored = hash(&password).unwrap();
        assert!(is_right(&password, &stored) && !is_right("other", &stored));
        assert_ne!(stored, hash(&password).unwrap());
        assert!(!stored.contains(password.as_str()));
    }
}
