//! DescribeInstanceTypes and DescribeInstanceTypeOfferings: the configured table.
//!
//! Nothing is said that is not so of a machine of ours: no processor's speed, no network's
//! throughput.  `hypervisor` is left out since EC2 knows no word for it.

use cumulet_domain::instance_types::InstanceType;
use cumulet_domain::shown;
use cumulet_ec2_model::Answer;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::paging::Page;
use crate::regions::zone_id;

const FILTERS: Known = Known {
    names: &[
        "auto-recovery-supported",
        "bare-metal",
        "burstable-performance-supported",
        "current-generation",
        "dedicated-hosts-supported",
        "ebs-info.ebs-optimized-support",
        "ebs-info.encryption-support",
        "ebs-info.nvme-support",
        "free-tier-eligible",
        "hibernation-supported",
        "instance-storage-info.disk.count",
        "instance-storage-info.disk.size-in-gb",
        "instance-storage-info.encryption-support",
        "instance-storage-info.nvme-support",
        "instance-storage-info.total-size-in-gb",
        "instance-storage-supported",
        "instance-type",
        "memory-info.size-in-mib",
        "network-info.efa-supported",
        "network-info.ena-support",
        "network-info.encryption-in-transit-supported",
        "network-info.ipv4-addresses-per-interface",
        "network-info.ipv6-addresses-per-interface",
        "network-info.ipv6-supported",
        "network-info.maximum-network-cards",
        "network-info.maximum-network-interfaces",
        "nitro-enclaves-support",
        "nitro-tpm-support",
        "processor-info.supported-architecture",
        "supported-boot-mode",
        "supported-root-device-type",
        "supported-usage-class",
        "supported-virtualization-type",
        "vcpu-info.default-cores",
        "vcpu-info.default-threads-per-core",
        "vcpu-info.default-vcpus",
        "vcpu-info.valid-cores",
        "vcpu-info.valid-threads-per-core",
    ],
    without_value: &[
        "ebs-info.attachment-limit-type",
        "ebs-info.ebs-optimized-info.baseline-bandwidth-in-mbps",
        "ebs-info.ebs-optimized-info.baseline-iops",
        "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps",
        "ebs-info.ebs-optimized-info.maximum-bandwidth-in-mbps",
        "ebs-info.ebs-optimized-info.maximum-iops",
        "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps",
        "ebs-info.maximum-ebs-attachments",
        "ebs-info.maximum-ebs-cards",
        "hypervisor",
        "instance-storage-info.disk.type",
        "network-info.bandwidth-weightings",
        "network-info.efa-info.maximum-efa-interfaces",
        "network-info.flexible-ena-queues-support",
        "network-info.network-performance",
        "nitro-tpm-info.supported-versions",
        "processor-info.manufacturer",
        "processor-info.supported-features",
        "processor-info.sustained-clock-speed-in-ghz",
        "reboot-migration-support",
    ],
};

const OFFERING_FILTERS: Known = Known {
    names: &["instance-type", "location"],
    without_value: &[],
};

/// Least page of both.
const RESULTS_MIN: usize = 5;

const ARCHITECTURES: [&str; 2] = ["i386", "x86_64"];
const UNSUPPORTED: &str = "unsupported";

/// The ephemeral store, in whole gigabytes; nothing for a type without one.
fn storage_gib(it: &InstanceType) -> Option<u64> {
    Some(it.ephemeral_mib / 1024).filter(|size| *size > 0)
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let table = &call.engine.config().instance_types;
    let asked = call.request.list("InstanceType");
    let is_unknown = |name: &&&str| !table.iter().any(|it| it.name == **name);
    let unknown: Vec<&str> = asked.iter().filter(is_unknown).copied().collect();
    if !unknown.is_empty() {
        let names: String = unknown.join(", ").chars().take(200).collect();
        return Err(Refused::new(
            400,
            "InvalidInstanceType",
            format!("The following supplied instance types do not exist: [{names}]"),
        ));
    }
    let filters = Filters::of(&call.request, &FILTERS)?;
    let page = Page::of(&call.request, RESULTS_MIN, "InstanceType")?;
    let passing = table.iter().filter(|it| {
        let is_asked = asked.is_empty() || asked.contains(&it.name.as_str());
        is_asked && filters.pass(|name| filter_values(it, name))
    });
    let operation = call.request.operation.name;
    let (shown, next) = page.cut(operation, passing, |it| it.name.clone());
    let mut answer = call.answer();
    answer.list("instanceTypeSet", shown, write);
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

/// A list whose items are plain texts.
fn texts(answer: &mut Answer, name: &'static str, values: &[&str]) {
    answer.structure(name, |answer| {
        for value in values {
            answer.leaf("item", value);
        }
    });
}

fn write(answer: &mut Answer, it: &InstanceType) {
    answer.leaf("instanceType", &it.name);
    answer.leaf("currentGeneration", "true");
    answer.leaf("freeTierEligible", "false");
    texts(answer, "supportedUsageClasses", &["on-demand"]);
    texts(answer, "supportedRootDeviceTypes", &["instance-store"]);
    texts(answer, "supportedVirtualizationTypes", &["hvm"]);
    answer.leaf("bareMetal", "false");
    answer.structure("processorInfo", |answer| {
        texts(answer, "supportedArchitectures", &ARCHITECTURES);
    });
    answer.structure("vCpuInfo", |answer| {
        let count = it.vcpus.to_string();
        answer.leaf("defaultVCpus", &count);
        answer.leaf("defaultCores", &count);
        answer.leaf("defaultThreadsPerCore", "1");
        texts(answer, "validCores", &[&count]);
        texts(answer, "validThreadsPerCore", &["1"]);
    });
    answer.structure("memoryInfo", |answer| {
        answer.value("sizeInMiB", it.memory_mib);
    });
    let storage = storage_gib(it);
    answer.value("instanceStorageSupported", storage.is_some());
    if let Some(size) = storage {
        answer.structure("instanceStorageInfo", |answer| {
            answer.value("totalSizeInGB", size);
            answer.list("disks", [size], |answer, size| {
                answer.value("sizeInGB", size);
                answer.leaf("count", "1");
            });
            answer.leaf("nvmeSupport", UNSUPPORTED);
            answer.leaf("encryptionSupport", UNSUPPORTED);
        });
    }
    answer.structure("ebsInfo", |answer| {
        answer.leaf("ebsOptimizedSupport", UNSUPPORTED);
        answer.leaf("encryptionSupport", UNSUPPORTED);
        answer.leaf("nvmeSupport", UNSUPPORTED);
    });
    answer.structure("networkInfo", |answer| {
        answer.leaf("maximumNetworkInterfaces", "1");
        answer.leaf("maximumNetworkCards", "1");
        answer.leaf("defaultNetworkCardIndex", "0");
        answer.leaf("ipv4AddressesPerInterface", "1");
        answer.leaf("ipv6AddressesPerInterface", "0");
        answer.leaf("ipv6Supported", "false");
        answer.leaf("enaSupport", UNSUPPORTED);
        answer.leaf("efaSupported", "false");
        answer.leaf("encryptionInTransitSupported", "false");
        answer.leaf("enaSrdSupported", "false");
        answer.leaf("secondaryNetworkSupported", "false");
    });
    answer.structure("placementGroupInfo", |answer| {
        texts(answer, "supportedStrategies", &[]);
    });
    answer.leaf("hibernationSupported", "false");
    // Nobody earns or spends credits: a guest has its processors whenever it wants them.
    answer.leaf("burstablePerformanceSupported", "false");
    answer.leaf("dedicatedHostsSupported", "false");
    // A machine that ended by itself is started again on its disk.
    answer.leaf("autoRecoverySupported", "true");
    texts(answer, "supportedBootModes", &["legacy-bios"]);
    answer.leaf("nitroEnclavesSupport", UNSUPPORTED);
    answer.leaf("nitroTpmSupport", UNSUPPORTED);
    answer.leaf("supportedInRegion", "true");
}

fn filter_values(it: &InstanceType, name: &str) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match name {
        "auto-recovery-supported" | "current-generation" => one("true"),
        "bare-metal"
        | "burstable-performance-supported"
        | "dedicated-hosts-supported"
        | "free-tier-eligible"
        | "hibernation-supported"
        | "network-info.efa-supported"
        | "network-info.encryption-in-transit-supported"
        | "network-info.ipv6-supported" => one("false"),
        "ebs-info.ebs-optimized-support"
        | "ebs-info.encryption-support"
        | "ebs-info.nvme-support"
        | "network-info.ena-support"
        | "nitro-enclaves-support"
        | "nitro-tpm-support" => one(UNSUPPORTED),
        "instance-storage-info.disk.count" => storage_gib(it)
            .map(|_| "1".to_owned())
            .into_iter()
            .collect(),
        "instance-storage-info.encryption-support" | "instance-storage-info.nvme-support" => {
            let word = storage_gib(it).map(|_| UNSUPPORTED.to_owned());
            word.into_iter().collect()
        }
        "instance-storage-info.disk.size-in-gb" | "instance-storage-info.total-size-in-gb" => {
            let size = storage_gib(it).map(|size| size.to_string());
            size.into_iter().collect()
        }
        "instance-storage-supported" => vec![storage_gib(it).is_some().to_string()],
        "instance-type" => one(&it.name),
        "memory-info.size-in-mib" => vec![it.memory_mib.to_string()],
        "network-info.ipv6-addresses-per-interface" => one("0"),
        "network-info.ipv4-addresses-per-interface"
        | "network-info.maximum-network-cards"
        | "network-info.maximum-network-interfaces"
        | "vcpu-info.default-threads-per-core"
        | "vcpu-info.valid-threads-per-core" => one("1"),
        "processor-info.supported-architecture" => {
            ARCHITECTURES.iter().map(ToString::to_string).collect()
        }
        "supported-boot-mode" => one("legacy-bios"),
        "supported-root-device-type" => one("instance-store"),
        "supported-usage-class" => one("on-demand"),
        "supported-virtualization-type" => one("hvm"),
        "vcpu-info.default-cores" | "vcpu-info.default-vcpus" | "vcpu-info.valid-cores" => {
            vec![it.vcpus.to_string()]
        }
        _ => vec![],
    }
}

pub(crate) fn describe_offerings(call: &Call<'_>) -> Result<String, Refused> {
    let config = call.engine.config();
    let kind = call.request.text("LocationType").unwrap_or("region");
    let location = match kind {
        "region" => Some(config.region.clone()),
        "availability-zone" => Some(config.zone.clone()),
        "availability-zone-id" => Some(zone_id(&config.region)),
        // There are none, so that they have no types.
        "outpost" => None,
        other => {
            let other = shown(other);
            return Err(Refused::invalid(format!(
                "Value ({other}) for parameter locationType is invalid."
            )));
        }
    };
    let filters = Filters::of(&call.request, &OFFERING_FILTERS)?;
    let page = Page::of(&call.request, RESULTS_MIN, "")?;
    let offers = location.iter().flat_map(|location| {
        let types = config.instance_types.iter();
        types.map(move |it| (it.name.as_str(), location.as_str()))
    });
    let passing = offers.filter(|(name, location)| {
        filters.pass(|filter| {
            vec![match filter {
                "location" => (*location).to_owned(),
                _ => (*name).to_owned(),
            }]
        })
    });
    let operation = call.request.operation.name;
    let (shown, next) = page.cut(operation, passing, |(name, _)| (*name).to_owned());
    let mut answer = call.answer();
    answer.list(
        "instanceTypeOfferingSet",
        shown,
        |answer, (name, location)| {
            answer.leaf("instanceType", name);
            answer.leaf("locationType", kind);
            answer.leaf("location", location);
        },
    );
    answer.optional("nextToken", next);
    Ok(answer.finish())
}
