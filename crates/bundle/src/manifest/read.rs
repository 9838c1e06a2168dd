//! Reading a manifest strictly: bounded depth and number of elements, no DTD, nothing twice.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use super::{FILENAME_BYTES_MAX, Manifest, ManifestError, PARTS_MAX, Part, Version};

const DEPTH_MAX: usize = 8;
const TEXT_BYTES_MAX: usize = 16 * 1024;
const ELEMENTS_MAX: usize = PARTS_MAX * 3 + 1000;

/// Reads a manifest in plain text.
///
/// # Errors
/// What is wrong and where, for the user.
pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
    let text = std::str::from_utf8(text)
        .map_err(|_| ManifestError::new("The manifest is not text in UTF-8"))?;
    Document::read(text)?.into_manifest(text)
}

/// One element without children, or the attributes of one with children.
struct Leaf {
    /// Names from the root, joined by `/`.
    path: String,
    text: String,
}

#[derive(Default)]
struct Document {
    leaves: Vec<Leaf>,
    parts: Vec<PartialPart>,
    count: Option<String>,
    /// Byte ranges of `<image>…</image>` and `<machine_configuration>…</machine_configuration>`.
    image: Option<(usize, usize)>,
    machine_configuration: Option<(usize, usize)>,
}

#[derive(Default)]
struct PartialPart {
    index: Option<String>,
    filename: Option<String>,
    digest: Option<String>,
}

const PART: &str = "manifest/image/parts/part";

impl Document {
    fn read(text: &str) -> Result<Self, ManifestError> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().check_end_names = true;
        let mut document = Self::default();
        let mut path: Vec<String> = vec![];
        let mut starts: Vec<usize> = vec![];
        let mut value = String::new();
        let mut elements = 0;
        let mut has_root = false;
        loop {
            let before = position(&reader);
            let event = reader.read_event().map_err(|cause| {
                ManifestError::new(format!(
                    "The manifest is not well-formed XML: {cause} (byte {before})"
                ))
            })?;
            match event {
                Event::Start(start) => {
                    elements += 1;
                    if path.len() == DEPTH_MAX || elements > ELEMENTS_MAX {
                        return Err(ManifestError::new("The manifest has too many elements"));
                    }
                    if path.is_empty() && std::mem::replace(&mut has_root, true) {
                        return Err(ManifestError::new("The manifest has two root elements"));
                    }
                    path.push(name_of(&start)?);
                    starts.push(before);
                    document.start(&path.join("/"), &start)?;
                    value.clear();
                }
                Event::Empty(start) => {
                    elements += 1;
                    if elements > ELEMENTS_MAX {
                        return Err(ManifestError::new("The manifest has too many elements"));
                    }
                    path.push(name_of(&start)?);
                    let joined = path.join("/");
                    document.start(&joined, &start)?;
                    document.end(&joined, String::new(), (before, position(&reader)))?;
                    path.pop();
                }
                Event::End(_) => {
                    let joined = path.join("/");
                    path.pop();
                    let start = starts.pop().unwrap_or_default();
                    let text = std::mem::take(&mut value);
                    document.end(&joined, text, (start, position(&reader)))?;
                }
                Event::Text(text) => {
                    append(&mut value, text.decode().unwrap_or_default().as_ref())?
                }
                Event::CData(data) => {
                    append(&mut value, data.decode().unwrap_or_default().as_ref())?
                }
                Event::GeneralRef(reference) => {
                    let name = reference.decode().unwrap_or_default().into_owned();
                    let character = reference
                        .resolve_char_ref()
                        .ok()
                        .flatten()
                        .map(String::from);
                    let known = character
                        .or_else(|| resolve_predefined_entity(&name).map(ToOwned::to_owned))
                        .ok_or_else(|| {
                            ManifestError::new(format!("The entity &{name}; is not known"))
                        })?;
                    append(&mut value, &known)?;
                }
                Event::DocType(_) => {
                    return Err(ManifestError::new("A manifest must not have a DOCTYPE"));
                }
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Eof => break,
            }
        }
        if !path.is_empty() {
            return Err(ManifestError::new(format!(
                "The manifest ends inside <{}>",
                path.join("/")
            )));
        }
        Ok(document)
    }

    fn start(&mut self, path: &str, start: &BytesStart<'_>) -> Result<(), ManifestError> {
        match path {
            PART => {
                if self.parts.len() == PARTS_MAX {
                    return Err(ManifestError::new(format!("More than {PARTS_MAX} parts")));
                }
                self.parts.push(PartialPart {
                    index: attribute(start, "index")?,
                    ..Default::default()
                });
            }
            "manifest/image/parts" => self.count = attribute(start, "count")?,
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, path: &str, text: String, span: (usize, usize)) -> Result<(), ManifestError> {
        let slot = match path {
            "manifest/image" => return once(&mut self.image, span, path),
            "manifest/machine_configuration" => {
                return once(&mut self.machine_configuration, span, path);
            }
            "manifest/image/parts/part/filename" => {
                self.parts.last_mut().map(|it| &mut it.filename)
            }
            "manifest/image/parts/part/digest" => self.parts.last_mut().map(|it| &mut it.digest),
            PART | "manifest/image/parts" => return Ok(()),
            _ => {
                self.leaves.push(Leaf {
                    path: path.to_owned(),
                    text,
                });
                return Ok(());
            }
        };
        slot.map_or(Ok(()), |slot| once(slot, text, path))
    }

    fn optional(&self, path: &str) -> Result<Option<String>, ManifestError> {
        let mut found = self.leaves.iter().filter(|leaf| leaf.path == path);
        let first = found.next().map(|leaf| leaf.text.trim().to_owned());
        if found.next().is_some() {
            return Err(ManifestError::new(format!("<{path}> is there twice")));
        }
        Ok(first)
    }

    fn required(&self, path: &str) -> Result<String, ManifestError> {
        self.optional(path)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| ManifestError::new(format!("<{path}> is missing or empty")))
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>, ManifestError> {
        let text = self.required(path)?;
        hex::decode(&text).map_err(|_| ManifestError::new(format!("<{path}> is not hexadecimal")))
    }

    fn number(&self, path: &str) -> Result<u64, ManifestError> {
        let text = self.required(path)?;
        text.parse()
            .map_err(|_| ManifestError::new(format!("<{path}> is not a number: {text}")))
    }

    fn all(&self, path: &str) -> Vec<String> {
        let same = self.leaves.iter().filter(|leaf| leaf.path == path);
        same.map(|leaf| leaf.text.trim().to_owned()).collect()
    }

    fn into_manifest(mut self, text: &str) -> Result<Manifest, ManifestError> {
        let version = match self.required("manifest/version")?.as_str() {
            "3" => Version::V3,
            "2007-08-29" | "20070829" => Version::V20070829,
            "2007-10-10" => Version::V20071010,
            other => {
                let text = format!(
                    "The manifest version {other} is not known; 3, 2007-08-29 and 2007-10-10 are"
                );
                return Err(ManifestError::new(text));
            }
        };
        let image = self
            .image
            .ok_or_else(|| ManifestError::new("<manifest/image> is missing"))?;
        let mut signed = vec![];
        if let (Some((start, end)), true) = (self.machine_configuration, version != Version::V3) {
            signed.extend_from_slice(&text.as_bytes()[start..end]);
        }
        signed.extend_from_slice(&text.as_bytes()[image.0..image.1]);
        let parts = std::mem::take(&mut self.parts);
        let parts = read_parts(parts, self.count.as_deref())?;
        let configuration = |name: &str| format!("manifest/machine_configuration/{name}");
        let mapping = configuration("block_device_mapping/mapping");
        let virtuals = self.all(&format!("{mapping}/virtual"));
        let devices = self.all(&format!("{mapping}/device"));
        if virtuals.len() != devices.len() {
            return Err(ManifestError::new(
                "A block device mapping lacks its name or its device",
            ));
        }
        // Version 3 does not sign the configuration, so nothing of it is believed.
        let is_signed = version != Version::V3;
        let believed = |value: Option<String>| value.filter(|it| is_signed && !it.is_empty());
        Ok(Manifest {
            version,
            name: self.required("manifest/image/name")?,
            user: self.required("manifest/image/user")?.replace('-', ""),
            digest: digest(
                &self.required("manifest/image/digest")?,
                "manifest/image/digest",
            )?,
            size: self.number("manifest/image/size")?,
            bundled_size: self.number("manifest/image/bundled_size")?,
            ec2_encrypted_key: self.bytes("manifest/image/ec2_encrypted_key")?,
            ec2_encrypted_iv: self.bytes("manifest/image/ec2_encrypted_iv")?,
            user_encrypted_key: self.bytes("manifest/image/user_encrypted_key")?,
            user_encrypted_iv: self.bytes("manifest/image/user_encrypted_iv")?,
            parts,
            architecture: believed(self.optional(&configuration("architecture"))?),
            kernel_id: believed(self.optional(&configuration("kernel_id"))?),
            ramdisk_id: believed(self.optional(&configuration("ramdisk_id"))?),
            image_type: self
                .optional("manifest/image/type")?
                .filter(|it| !it.is_empty()),
            block_device_mapping: virtuals
                .into_iter()
                .zip(devices)
                .filter(|_| is_signed)
                .collect(),
            product_codes: self
                .all(&configuration("product_codes/product_code"))
                .into_iter()
                .filter(|code| is_signed && !code.is_empty())
                .collect(),
            signature: self.bytes("manifest/signature")?,
            signed,
        })
    }
}

fn read_parts(parts: Vec<PartialPart>, count: Option<&str>) -> Result<Vec<Part>, ManifestError> {
    if count.and_then(|text| text.trim().parse::<usize>().ok()) != Some(parts.len()) {
        let text = format!(
            "<manifest/image/parts> says count='{}' and holds {} parts",
            count.unwrap_or_default(),
            parts.len()
        );
        return Err(ManifestError::new(text));
    }
    if parts.is_empty() {
        return Err(ManifestError::new("The manifest has no parts"));
    }
    let mut read = Vec::with_capacity(parts.len());
    for (place, part) in parts.into_iter().enumerate() {
        let index = part
            .index
            .as_deref()
            .and_then(|text| text.trim().parse::<usize>().ok());
        if index != Some(place) {
            return Err(ManifestError::new(format!(
                "Part {place} has another index or none"
            )));
        }
        let filename = part.filename.unwrap_or_default().trim().to_owned();
        if !is_filename(&filename) {
            return Err(ManifestError::new(format!(
                "The file name of part {place} is not allowed"
            )));
        }
        let digest_text = part.digest.unwrap_or_default();
        let sha1 = digest(
            digest_text.trim(),
            &format!("manifest/image/parts/part[{place}]/digest"),
        )?;
        read.push(Part { filename, sha1 });
    }
    Ok(read)
}

/// A part lies beside its manifest: its name is no path.
fn is_filename(name: &str) -> bool {
    let is_length_right = (1..=FILENAME_BYTES_MAX).contains(&name.len());
    let is_character_right = |it: char| it != '/' && it != '\\' && !it.is_control();
    is_length_right && name != "." && name != ".." && name.chars().all(is_character_right)
}

fn digest(text: &str, path: &str) -> Result<[u8; 20], ManifestError> {
    let bytes = hex::decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    bytes
        .ok_or_else(|| ManifestError::new(format!("<{path}> is not a SHA-1 digest in hexadecimal")))
}

fn once<T>(slot: &mut Option<T>, value: T, path: &str) -> Result<(), ManifestError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ManifestError::new(format!("<{path}> is there twice"))),
    }
}

fn append(value: &mut String, text: &str) -> Result<(), ManifestError> {
    if value.len() + text.len() > TEXT_BYTES_MAX {
        return Err(ManifestError::new("An element of the manifest is too long"));
    }
    value.push_str(text);
    Ok(())
}

fn name_of(start: &BytesStart<'_>) -> Result<String, ManifestError> {
    let name = String::from_utf8_lossy(start.name().as_ref()).into_owned();
    if name.len() > 100 || name.contains('/') {
        return Err(ManifestError::new("An element's name is too long"));
    }
    Ok(name)
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, ManifestError> {
    let found = start
        .try_get_attribute(name)
        .map_err(|cause| ManifestError::new(format!("An attribute is not well formed: {cause}")))?;
    Ok(found.map(|it| String::from_utf8_lossy(&it.value).into_owned()))
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}
