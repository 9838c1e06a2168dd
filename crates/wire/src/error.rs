//! The error documents of the Query APIs.

use crate::xml::Writer;

/// EC2's: no namespace, `RequestID` with a capital D, last.
pub fn ec2(code: &str, message: &str, request_id: &str) -> String {
    let mut writer = Writer::new();
    writer.open("Response", None);
    writer.open("Errors", None);
    writer.open("Error", None);
    writer.leaf("Code", code);
    writer.leaf("Message", message);
    writer.close();
    writer.close();
    writer.leaf("RequestID", request_id);
    writer.finish()
}

/// The form of STS and IAM.  `is_sender` says whose fault it was.
pub fn sts(
    namespace: &str,
    is_sender: bool,
    code: &str,
    message: &str,
    request_id: &str,
) -> String {
    let mut writer = Writer::new();
    writer.open("ErrorResponse", Some(namespace));
    writer.open("Error", None);
    writer.leaf("Type", if is_sender { "Sender" } else { "Receiver" });
    writer.leaf("Code", code);
    writer.leaf("Message", message);
    writer.close();
    writer.leaf("RequestId", request_id);
    writer.finish()
}
