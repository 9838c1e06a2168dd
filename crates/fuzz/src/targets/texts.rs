//! Small texts: times, base64, ids.

use cumulet_domain::{AccountId, ImageId, InstanceId, KernelId, ReservationId};
use cumulet_wire::{base64, query, time, xml};

use super::{Runner, Target};
use crate::harness::shape;

pub(crate) static TEXTS: Target = Target {
    name: "texts",
    dictionary: &[
        b"T",
        b"Z",
        b"+00:00",
        b"-23:59",
        b".999999999",
        b":60",
        b"0000-00-00",
        b"9999-12-31",
        b"-",
        b"24:00:00",
        b"GMT",
        b"Fri, ",
        b"=",
        b"==",
        b"i-",
        b"ami-",
        b"r-",
        b"aki-",
        b"\r\n",
        b"\xf0\x9f\x92\xa9",
        b"%",
        b"&",
        b"<",
        b"]]>",
        b"\0",
    ],
    length_max: 4096,
    prepare,
};

/// 0001-01-01: years before it are shown with a sign.
const YEAR_ONE_MS: i64 = -62_135_596_800_000;

fn prepare() -> Runner {
    Box::new(|input| {
        let text = String::from_utf8_lossy(input);
        let mut answer = String::new();
        let mut note = |name: &str, is_good: bool| {
            if is_good {
                answer.push_str(name);
            }
        };
        let iso = time::parse_iso8601(&text);
        let http = time::parse_http(&text);
        for at in [iso, http].into_iter().flatten() {
            let shown = time::format_iso8601(at);
            if at.0 >= YEAR_ONE_MS {
                assert_eq!(time::parse_iso8601(&shown), Some(at), "{shown}");
            }
            let _ = (time::format_basic(at), time::format_http(at));
        }
        note("iso", iso.is_some());
        note("http", http.is_some());
        let bytes = base64::decode(&text, 1024);
        if let Ok(bytes) = &bytes {
            assert!(bytes.len() <= 1024);
            let again = base64::decode(&base64::encode(bytes), 1024);
            assert_eq!(again.as_ref(), Ok(bytes));
            let again = base64::decode(&base64::encode_lines(bytes), 1024);
            assert_eq!(again.as_ref(), Ok(bytes));
        }
        note("base", bytes.is_ok());
        let decoded = query::decode(&text);
        assert_eq!(query::decode(&query::encode(&text)).as_deref(), Ok(&*text));
        note("query", decoded.is_ok());
        note("index", query::parse_index(&text).is_some());
        let mut writer = xml::Writer::new();
        writer.leaf("x", &text);
        let document = writer.finish();
        assert_eq!(
            document.matches('<').count(),
            if text.is_empty() { 2 } else { 3 }
        );
        let instance = text.parse::<InstanceId>();
        if let Ok(id) = &instance {
            assert_eq!(id.to_string().parse::<InstanceId>().as_ref().ok(), Some(id));
        }
        note("instance", instance.is_ok());
        note("image", text.parse::<ImageId>().is_ok());
        note("kernel", text.parse::<KernelId>().is_ok());
        note("reservation", text.parse::<ReservationId>().is_ok());
        note("account", text.parse::<AccountId>().is_ok());
        shape(&answer)
    })
}
