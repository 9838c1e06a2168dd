//! A request as a text: a line with method and target, headers, an empty line, the body.

use bytes::Bytes;
use http::Request;

/// The request that the input describes; `None` when HTTP has no such request, so that no door
/// would see it.
pub(crate) fn read(input: &[u8]) -> Option<Request<Bytes>> {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((input, &b""[..]), |end| (&input[..end], &input[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.splitn(2, |byte| *byte == b' ');
    let method = http::Method::from_bytes(words.next()?).ok()?;
    let mut request = Request::builder()
        .method(method)
        .uri(words.next()?)
        .body(Bytes::copy_from_slice(body))
        .ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = http::HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

/// What the request says of its host.
pub(crate) fn host(request: &Request<Bytes>) -> String {
    let header = request.headers().get(http::header::HOST);
    let header = header.and_then(|value| value.to_str().ok());
    header.unwrap_or_default().to_owned()
}
