//! AES-128-CBC as a reader.

use std::io::{self, Read};

use aws_lc_rs::cipher::{AES_128, DecryptionContext, StreamingDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::UnbundleError;

const INPUT_BYTES: usize = 64 * 1024;
const BLOCK_BYTES: usize = 16;

/// Decrypts what it reads; the padding is checked at the end.
pub(super) struct Decrypting<R> {
    input: R,
    /// `None` after the end.
    key: Option<StreamingDecryptingKey>,
    encrypted: Vec<u8>,
    plain: Vec<u8>,
    /// What of `plain` was not given out yet.
    ready: std::ops::Range<usize>,
}

impl<R: Read> Decrypting<R> {
    pub(super) fn new(input: R, key: &[u8; 16], iv: &[u8; 16]) -> Result<Self, UnbundleError> {
        let refused = |_| UnbundleError::refused("The bundle's key cannot be used");
        let unbound = UnboundCipherKey::new(&AES_128, key).map_err(refused)?;
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        Ok(Self {
            input,
            key: Some(StreamingDecryptingKey::cbc_pkcs7(unbound, context).map_err(refused)?),
            encrypted: vec![0; INPUT_BYTES],
            plain: vec![0; INPUT_BYTES + 2 * BLOCK_BYTES],
            ready: 0..0,
        })
    }

    /// Decrypts some more; `ready` stays empty only at the end.
    fn refill(&mut self) -> io::Result<()> {
        let wrong = |_| {
            let text = "it is not encrypted with the manifest's key, or not complete";
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        while let (Some(key), true) = (&mut self.key, self.ready.is_empty()) {
            let length = self.input.read(&mut self.encrypted)?;
            let written = if length > 0 {
                let input = &self.encrypted[..length];
                key.update(input, &mut self.plain)
                    .map_err(wrong)?
                    .written()
                    .len()
            } else {
                let key = self.key.take().expect("it was there a moment ago");
                key.finish(&mut self.plain).map_err(wrong)?.written().len()
            };
            self.ready = 0..written;
        }
        Ok(())
    }
}

impl<R: Read> Read for Decrypting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.refill()?;
        let length = buffer.len().min(self.ready.len());
        let (now, later) = (self.ready.start, self.ready.start + length);
        buffer[..length].copy_from_slice(&self.plain[now..later]);
        self.ready.start = later;
        Ok(length)
    }
}
