//! Manifests: written by us and checked by `openssl`, and the other way round.

use std::fs;
use std::path::Path;
use std::process::Command;

use cumulet_bundle::manifest::{
    Draft, Manifest, Part, Version, decrypt, encrypt_hex_text, parse, verify, write,
};
use cumulet_bundle::sign::{SignError, SigningKey};
use proptest::prelude::*;

fn shell(directory: &Path, command: &str) -> Vec<u8> {
    let mut bash = Command::new("bash");
    let output = bash
        .args(["-euo", "pipefail", "-c", command])
        .current_dir(directory)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    output.stdout
}

/// A key in both forms, and certificates of it and of another key.
fn keys() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let command = "for who in us them; do \
        openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=$who -keyout $who.pk -out $who.cert; \
        openssl rsa -traditional -in $who.pk -out $who.pkcs1; \
        openssl rsa -in $who.pk -pubout -out $who.pub; \
        openssl pkcs8 -topk8 -nocrypt -in $who.pk -outform DER -out $who.der; done";
    shell(directory.path(), command);
    directory
}

fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap()
}

fn draft(version: Version, certificate: &str) -> Draft {
    let part = |index| Part {
        filename: format!("a & b.part.{index:02}"),
        sha1: [7; 20],
    };
    Draft {
        version,
        name: "a & b".into(),
        user: "123456789012".into(),
        digest: [9; 20],
        size: 1 << 40,
        bundled_size: 12345,
        ec2_encrypted_key: encrypt_hex_text(&[1; 16], certificate).unwrap(),
        ec2_encrypted_iv: encrypt_hex_text(&[2; 16], certificate).unwrap(),
        user_encrypted_key: encrypt_hex_text(&[1; 16], certificate).unwrap(),
        user_encrypted_iv: encrypt_hex_text(&[2; 16], certificate).unwrap(),
        parts: vec![part(0), part(1)],
        architecture: "x86_64".into(),
        kernel_id: Some("aki-12345678".into()),
        ramdisk_id: None,
        block_device_mapping: vec![("ami".into(), "sda1".into())],
        product_codes: vec!["ABC".into()],
    }
}

#[test]
fn signatures_are_those_of_openssl() {
    let directory = keys();
    let path = directory.path();
    fs::write(path.join("message"), b"some bytes").unwrap();
    for name in ["us.pk", "us.pkcs1"] {
        let key = SigningKey::from_pem(&read(path, name)).unwrap();
        fs::write(path.join("signature"), key.sign(b"some bytes").unwrap()).unwrap();
        shell(
            path,
            "openssl dgst -sha1 -verify us.pub -signature signature message",
        );
        shell(
            path,
            "openssl dgst -sha1 -sign us.pk message | cmp - signature",
        );
    }
}

#[test]
fn other_keys_are_refused() {
    let directory = keys();
    let path = directory.path();
    shell(
        path,
        "openssl ecparam -name prime256v1 -genkey -noout -out ec",
    );
    shell(
        path,
        "openssl rsa -aes128 -passout pass:x -in us.pk -out locked",
    );
    for name in ["ec", "locked", "us.cert", "us.pub"] {
        let result = SigningKey::from_pem(&read(path, name));
        assert_eq!(result.err(), Some(SignError::Key), "{name}");
    }
    assert!(SigningKey::from_pem("nonsense").is_err());
}

#[test]
fn what_is_written_is_read_and_verified() {
    let directory = keys();
    let path = directory.path();
    let key = SigningKey::from_pem(&read(path, "us.pk")).unwrap();
    let (ours, theirs) = (read(path, "us.cert"), read(path, "them.cert"));
    for version in [Version::V3, Version::V20070829, Version::V20071010] {
        let draft = draft(version, &ours);
        let text = write(&draft, &key).unwrap();
        let manifest = parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.version, version);
        assert_eq!(manifest.name, draft.name);
        assert_eq!(manifest.user, draft.user);
        assert_eq!(manifest.digest, draft.digest);
        assert_eq!((manifest.size, manifest.bundled_size), (1 << 40, 12345));
        assert_eq!(manifest.parts, draft.parts);
        let is_said = version != Version::V3;
        assert_eq!(manifest.architecture.is_some(), is_said);
        if version == Version::V20071010 {
            assert_eq!(manifest.kernel_id, draft.kernel_id);
            assert_eq!(manifest.block_device_mapping, draft.block_device_mapping);
            assert_eq!(manifest.product_codes, draft.product_codes);
        }
        assert!(verify(&manifest, [&*theirs, &*ours]));
        assert!(!verify(&manifest, [&*theirs]));
        let pkcs8 = fs::read(path.join("us.der")).unwrap();
        let keys = manifest.open_for_cloud(&pkcs8).unwrap();
        assert_eq!((*keys.key, keys.iv), ([1; 16], [2; 16]));
        let other = fs::read(path.join("them.der")).unwrap();
        assert!(manifest.open_for_cloud(&other).is_err());
        // The signature as another program sees it.
        fs::write(path.join("signed"), signed_text(&text, version)).unwrap();
        fs::write(path.join("signature"), &manifest.signature).unwrap();
        shell(
            path,
            "openssl dgst -sha1 -verify us.pub -signature signature signed",
        );
        fs::write(path.join("key"), &manifest.user_encrypted_key).unwrap();
        let opened = shell(path, "openssl pkeyutl -decrypt -inkey us.pk -in key");
        assert_eq!(opened, hex::encode([1; 16]).as_bytes());
    }
}

fn signed_text(text: &str, version: Version) -> String {
    let element = |name: &str| {
        let start = text.find(&format!("<{name}>")).unwrap();
        let end = text.find(&format!("</{name}>")).unwrap() + name.len() + 3;
        &text[start..end]
    };
    match version {
        Version::V3 => element("image").to_owned(),
        Version::V20070829 | Version::V20071010 => {
            element("machine_configuration").to_owned() + element("image")
        }
    }
}

#[test]
fn a_tampered_manifest_is_not_verified() {
    let directory = keys();
    let path = directory.path();
    let key = SigningKey::from_pem(&read(path, "us.pk")).unwrap();
    let certificate = read(path, "us.cert");
    let text = write(&draft(Version::V20071010, &certificate), &key).unwrap();
    for (from, to) in [
        ("<size>1099511627776<", "<size>1099511627777<"),
        ("x86_64", "i386"),
        ("part.01", "part.02"),
        ("<part index='0'>", "<part index=\"0\">"),
        ("<image>", "<image >"),
        ("sda1", "sdb1"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        let manifest = parse(changed.as_bytes()).unwrap();
        assert!(!verify(&manifest, [&*certificate]), "{from}");
    }
}

#[test]
fn a_manifest_of_another_program_is_read() {
    let directory = keys();
    let path = directory.path();
    let certificate = read(path, "us.cert");
    // As the tool of the time made it: version 3, signed by openssl.
    let sealed = |secret: &str| {
        let command = format!(
            "printf %s {secret} | openssl pkeyutl -encrypt -pubin -inkey us.pub | od -An -tx1 -v | tr -d ' \\n'"
        );
        String::from_utf8(shell(path, &command)).unwrap()
    };
    let image = format!(
        "<image><name>fred</name><user>4952-1993-3132</user>\
         <digest algorithm='SHA1'>{sha1}</digest><size>1048578048</size>\
         <bundled_size>150000000</bundled_size>\
         <ec2_encrypted_key algorithm='AES-128-CBC'>{key}</ec2_encrypted_key>\
         <user_encrypted_key algorithm='AES-128-CBC'>{key}</user_encrypted_key>\
         <ec2_encrypted_iv>{iv}</ec2_encrypted_iv><user_encrypted_iv>{iv}</user_encrypted_iv>\
         <parts count='1'><part index='0'><filename>fred.part.00</filename>\
         <digest algorithm='SHA1'>{sha1}</digest></part></parts></image>",
        sha1 = "ab".repeat(20),
        key = sealed(&"0f".repeat(16)),
        iv = sealed(&"1e".repeat(16)),
    );
    fs::write(path.join("image"), &image).unwrap();
    let sign = "openssl dgst -sha1 -sign us.pk image | od -An -tx1 -v | tr -d ' \\n'";
    let signature = String::from_utf8(shell(path, sign)).unwrap();
    let text = format!(
        "<?xml version='1.0'?><manifest><version>3</version><bundler><name>ec2-ami-tools</name>\
         <version>1.3</version><release>0000</release></bundler>{image}\
         <signature>{signature}</signature></manifest>"
    );
    let check = |manifest: &Manifest| {
        assert!(verify(manifest, [&*certificate]));
        assert_eq!(manifest.user, "495219933132");
        let keys = manifest
            .open_for_user(&fs::read(path.join("us.der")).unwrap())
            .unwrap();
        assert_eq!((*keys.key, keys.iv), ([0x0f; 16], [0x1e; 16]));
    };
    check(&parse(text.as_bytes()).unwrap());

    // The two forms in which it was uploaded.
    fs::write(path.join("plain"), &text).unwrap();
    let secret = "0001020304050607 08090a0b0c0d0e0f 1011121314151617 18191a1b1c1d1e1f";
    let command = format!(
        "printf '{}' > secret; openssl pkeyutl -encrypt -pubin -inkey us.pub -in secret -out sealed; \
         openssl enc -e -aes-128-cbc -K 000102030405060708090a0b0c0d0e0f \
         -iv 101112131415161718191a1b1c1d1e1f -in plain -out body; \
         (printf '\\x02\\x01\\x00'; cat sealed body) > encrypted",
        hex::decode(secret.replace(' ', ""))
            .unwrap()
            .iter()
            .map(|it| format!("\\x{it:02x}"))
            .collect::<String>()
    );
    shell(path, &command);
    let encrypted = fs::read(path.join("encrypted")).unwrap();
    let pkcs8 = fs::read(path.join("us.der")).unwrap();
    check(&parse(&decrypt(&encrypted, &pkcs8).unwrap()).unwrap());
    assert!(decrypt(&encrypted, &fs::read(path.join("them.der")).unwrap()).is_err());
    assert!(decrypt(&encrypted[..200], &pkcs8).is_err());
}

#[test]
fn doctypes_and_paths_are_refused() {
    let directory = keys();
    let path = directory.path();
    let key = SigningKey::from_pem(&read(path, "us.pk")).unwrap();
    let text = write(&draft(Version::V3, &read(path, "us.cert")), &key).unwrap();
    for (from, to) in [
        (
            "<manifest>",
            "<!DOCTYPE manifest [<!ENTITY x 'y'>]><manifest>",
        ),
        ("a &amp; b.part.00", "../a.part.00"),
        ("a &amp; b.part.00", "/etc/passwd"),
        ("count='2'", "count='3'"),
        ("<size>", "<size>-"),
        ("<signature>", "<signature>x"),
        ("<version>3<", "<version>4<"),
        ("</manifest>", "</manifest><manifest></manifest>"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert!(parse(changed.as_bytes()).is_err(), "{to}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
        let _ = decrypt(&bytes, &bytes);
    }

    #[test]
    fn any_elements_are_read_without_panic(
        text in "(<(/?(manifest|image|parts|part|version|digest|size|x)( (index|count)='[0-9]')?/?)>|[a0-9&;<>!'\\[-]){0,40}"
    ) {
        let _ = parse(text.as_bytes());
        let _ = parse(format!("<manifest><version>3</version><image>{text}</image></manifest>").as_bytes());
    }
}
