//! `cumulet bundle`: an image to an encrypted, signed bundle, and that to a bucket.
//!
//! A client of the S3 door like any other: it needs no server for bundling, and
//! for uploading only an address and an access key.  What it needs is found in
//! the variables that `cumulet env` prints.

use std::io::Read as _;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use cumulet_bundle::bundle::Form;
use cumulet_bundle::manifest::Version;
use cumulet_bundle::package::{Destination, Request, make, upload};
use cumulet_bundle::s3_client::Client;
use serde_json::json;
use zeroize::Zeroizing;

use super::output::{Output, say};

/// Makes and uploads bundles.
#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Makes a bundle of an image file.
    Image(ImageArgs),
    /// Uploads a bundle to a bucket.
    Upload(UploadArgs),
    /// Both, one after the other; prints the location to be registered.
    MakeAndUpload {
        #[command(flatten)]
        image: ImageArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, Args)]
struct ImageArgs {
    /// The image: a root file system or a disk, raw.
    #[arg(short = 'i', long, value_name = "FILE")]
    image: PathBuf,
    /// Your private key, PEM.
    #[arg(short = 'k', long, env = "EC2_PRIVATE_KEY", value_name = "FILE")]
    privatekey: PathBuf,
    /// Your certificate, PEM.
    #[arg(short = 'c', long, env = "EC2_CERT", value_name = "FILE")]
    cert: PathBuf,
    /// Your account number.
    #[arg(short = 'u', long, env = "EC2_USER_ID", value_name = "ACCOUNT")]
    user: String,
    /// Where the bundle goes.
    #[arg(short = 'd', long, value_name = "DIR", default_value = "/tmp")]
    destination: PathBuf,
    /// Begins the names of the bundle's files; the image's file name if not given.
    #[arg(short = 'p', long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// The cloud's certificate, PEM.
    #[arg(long, env = "EC2_CLOUD_CERT", value_name = "FILE")]
    ec2cert: PathBuf,
    /// Architecture of the image.
    #[arg(short = 'r', long, value_enum, default_value = "x86_64")]
    arch: Architecture,
    /// Version of the manifest.
    #[arg(long, value_enum, default_value = "2007-10-10")]
    manifest_version: ManifestVersion,
    /// Bundles the image itself, as the first tools did, and not a tar archive of it.
    #[arg(long)]
    raw: bool,
    /// Compression, from 1, fast, to 9, small.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    level: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Architecture {
    #[value(name = "i386")]
    I386,
    #[value(name = "x86_64")]
    X86_64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ManifestVersion {
    #[value(name = "3")]
    V3,
    #[value(name = "2007-08-29")]
    V20070829,
    #[value(name = "2007-10-10")]
    V20071010,
}

#[derive(Debug, Args)]
struct UploadArgs {
    /// The bundle's manifest; the parts lie beside it.
    #[arg(short = 'm', long, value_name = "FILE")]
    manifest: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// BUCKET or BUCKET/PATH; the bucket is created when there is none.
    #[arg(short = 'b', long, value_name = "BUCKET")]
    bucket: String,
    /// Who else may read the objects: `aws-exec-read` is the cloud alone.
    #[arg(long, default_value = "aws-exec-read", value_parser = ["aws-exec-read", "public-read"])]
    acl: String,
    /// The object store; also from AWS_ENDPOINT_URL.
    #[arg(long, env = "S3_URL", value_name = "URL")]
    url: Option<String>,
    /// Your access key's id.
    #[arg(short = 'a', long, env = "AWS_ACCESS_KEY_ID", value_name = "ID")]
    access_key: String,
    /// File with your secret, or `-` for standard input; else AWS_SECRET_ACCESS_KEY.  There is no
    /// argument for the secret itself: other users of this machine could read it.
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
}

/// # Errors
/// What could not be done, for the user.
pub(super) fn run(args: BundleArgs, output: Output) -> anyhow::Result<()> {
    let (manifest, location) = match args.command {
        BundleCommand::Image(image) => (make_bundle(&image)?, None),
        BundleCommand::Upload(args) => {
            let location = upload_bundle(&args.manifest, args.store)?;
            (args.manifest, Some(location))
        }
        BundleCommand::MakeAndUpload { image, store } => {
            let manifest = make_bundle(&image)?;
            let location = upload_bundle(&manifest, store)?;
            (manifest, Some(location))
        }
    };
    let manifest = manifest.display().to_string();
    if output.is_json {
        output.print(&json!({ "manifest": manifest, "location": location }));
    } else {
        say(format_args!("{}\n", location.unwrap_or(manifest)));
    }
    Ok(())
}

fn make_bundle(args: &ImageArgs) -> anyhow::Result<PathBuf> {
    let prefix = match &args.prefix {
        Some(prefix) => prefix.clone(),
        None => {
            let name = args
                .image
                .file_name()
                .context("the image's path has no file name")?;
            name.to_str()
                .context("the image's file name is not UTF-8; give a --prefix")?
                .to_owned()
        }
    };
    std::fs::create_dir_all(&args.destination)
        .with_context(|| format!("{} cannot be made", args.destination.display()))?;
    let private_key = Zeroizing::new(text(&args.privatekey)?);
    let manifest = make(&Request {
        image: &args.image,
        directory: &args.destination,
        prefix: &prefix,
        account: &args.user,
        private_key_pem: &private_key,
        certificate_pem: &text(&args.cert)?,
        cloud_certificate_pem: &text(&args.ec2cert)?,
        architecture: match args.arch {
            Architecture::I386 => "i386",
            Architecture::X86_64 => "x86_64",
        },
        version: match args.manifest_version {
            ManifestVersion::V3 => Version::V3,
            ManifestVersion::V20070829 => Version::V20070829,
            ManifestVersion::V20071010 => Version::V20071010,
        },
        form: if args.raw { Form::Raw } else { Form::Tar },
        threads: std::thread::available_parallelism().map_or(1, NonZero::get),
        level: args.level,
    })?;
    Ok(manifest)
}

fn upload_bundle(manifest: &Path, args: StoreArgs) -> anyhow::Result<String> {
    // A variable that is empty is one that is not set.
    let is_set = |text: &String| !text.is_empty();
    let url = args
        .url
        .filter(is_set)
        .or_else(|| std::env::var("AWS_ENDPOINT_URL").ok().filter(is_set))
        .context("no object store is named: give --url, or set S3_URL or AWS_ENDPOINT_URL")?;
    let secret = match (args.secret_key_file, std::env::var("AWS_SECRET_ACCESS_KEY")) {
        (Some(path), _) => secret_from(&path)?,
        (None, Ok(secret)) => Zeroizing::new(secret),
        (None, Err(_)) => {
            bail!("no secret is given: set AWS_SECRET_ACCESS_KEY or name a --secret-key-file")
        }
    };
    let client = Client::new(&url, &args.access_key, secret)?;
    let destination = Destination {
        client: &client,
        bucket: &args.bucket,
        acl: &args.acl,
    };
    Ok(upload(manifest, &destination, |name| {
        eprintln!("stored {name}")
    })?)
}

fn secret_from(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut secret = Zeroizing::new(String::new());
    if path == Path::new("-") {
        std::io::stdin().take(4096).read_to_string(&mut secret)?;
    } else {
        *secret = text(path)?;
    }
    Ok(Zeroizing::new(secret.trim().to_owned()))
}

fn text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
}
