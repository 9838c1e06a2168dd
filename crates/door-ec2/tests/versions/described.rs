//! What is asked of the operations that describe what an instance has and where it is, and what of
//! their answers this cloud has nothing to say about.

use cumulet_domain::VpcId;
use cumulet_ec2_model::Version;

/// As the list of the same name in `versions.rs`.
pub(crate) const NOTHING_TO_SAY: &[(&str, &str)] = &[
    // Volumes.
    (
        "volumeSet/item/iops",
        "nothing is promised of a disk's speed",
    ),
    (
        "volumeSet/item/throughput",
        "nothing is promised of a disk's speed",
    ),
    (
        "volumeSet/item/volumeInitializationRate",
        "nothing is promised of a disk's speed",
    ),
    ("volumeSet/item/kmsKeyId", "disks are not encrypted"),
    ("volumeSet/item/sseType", "disks are not encrypted"),
    ("volumeSet/item/outpostArn", "no outposts"),
    ("volumeSet/item/sourceVolumeId", "disks are made of images"),
    ("volumeSet/item/volumeArn", "nothing takes such a name"),
    ("volumeSet/item/operator/principal", "the owner's own"),
    ("volumeSet/item/operator/hiddenByDefault", "the owner's own"),
    (
        "volumeSet/item/attachmentSet/item/associatedResource",
        "the owner's own",
    ),
    (
        "volumeSet/item/attachmentSet/item/instanceOwningService",
        "the owner's own",
    ),
    (
        "volumeSet/item/attachmentSet/item/ebsCardIndex",
        "no such devices",
    ),
    // Networks.
    ("vpcSet/item/ipv6CidrBlockAssociationSet", "no IPv6 yet"),
    (
        "vpcSet/item/cidrBlockAssociationSet/item/cidrBlockState/statusMessage",
        "nothing went wrong",
    ),
    ("vpcSet/item/encryptionControl", "nothing to control"),
    (
        "vpcSet/item/blockPublicAccessStates",
        "no internet gateways",
    ),
    (
        "subnetSet/item/ipv6CidrBlockAssociationSet/item",
        "no IPv6 yet",
    ),
    ("subnetSet/item/enableLniAtDeviceIndex", "no outposts"),
    ("subnetSet/item/customerOwnedIpv4Pool", "no outposts"),
    ("subnetSet/item/outpostArn", "no outposts"),
    (
        "subnetSet/item/blockPublicAccessStates",
        "no internet gateways",
    ),
    ("subnetSet/item/type", "said of secondary networks"),
    ("addressesSet/item", "nobody has an Elastic IP address"),
    // Ports.
    ("networkInterfaceSet/item/requesterId", "the owner's own"),
    (
        "networkInterfaceSet/item/association",
        "no public addresses yet",
    ),
    (
        "networkInterfaceSet/item/privateIpAddressesSet/item/association",
        "no public addresses yet",
    ),
    (
        "networkInterfaceSet/item/publicDnsName",
        "no public addresses yet",
    ),
    (
        "networkInterfaceSet/item/publicIpDnsNameOptions",
        "no public addresses yet",
    ),
    (
        "networkInterfaceSet/item/denyAllIgwTraffic",
        "no internet gateways",
    ),
    (
        "networkInterfaceSet/item/attachment/enaSrdSpecification",
        "no such devices",
    ),
    (
        "networkInterfaceSet/item/attachment/enaQueueCount",
        "no such devices",
    ),
    (
        "networkInterfaceSet/item/connectionTrackingConfiguration",
        "nothing is configured",
    ),
    (
        "networkInterfaceSet/item/ipv6AddressesSet/item",
        "no IPv6 yet",
    ),
    ("networkInterfaceSet/item/ipv6Address", "no IPv6 yet"),
    ("networkInterfaceSet/item/ipv4PrefixSet", "no prefixes"),
    ("networkInterfaceSet/item/ipv6PrefixSet", "no prefixes"),
    ("networkInterfaceSet/item/outpostArn", "no outposts"),
    (
        "networkInterfaceSet/item/operator/principal",
        "the owner's own",
    ),
    (
        "networkInterfaceSet/item/operator/hiddenByDefault",
        "the owner's own",
    ),
    (
        "networkInterfaceSet/item/associatedSubnetSet",
        "said of secondary networks",
    ),
    // Types.
    ("instanceTypeSet/item/hypervisor", "EC2 has no word for it"),
    (
        "instanceTypeSet/item/processorInfo/sustainedClockSpeedInGhz",
        "nothing is promised",
    ),
    (
        "instanceTypeSet/item/processorInfo/supportedFeatures",
        "nothing is promised",
    ),
    (
        "instanceTypeSet/item/processorInfo/manufacturer",
        "nothing is promised",
    ),
    (
        "instanceTypeSet/item/instanceStorageInfo/disks/item/type",
        "nothing is promised",
    ),
    (
        "instanceTypeSet/item/ebsInfo/ebsOptimizedInfo",
        "nothing is promised",
    ),
    (
        "instanceTypeSet/item/ebsInfo/maximumEbsAttachments",
        "volumes are not attached",
    ),
    (
        "instanceTypeSet/item/ebsInfo/attachmentLimitType",
        "volumes are not attached",
    ),
    (
        "instanceTypeSet/item/ebsInfo/maximumEbsCards",
        "no such devices",
    ),
    ("instanceTypeSet/item/ebsInfo/ebsCardSet", "no such devices"),
    (
        "instanceTypeSet/item/networkInfo/networkPerformance",
        "nothing is promised",
    ),
    (
        "instanceTypeSet/item/networkInfo/networkCards",
        "nothing is promised",
    ),
    (
        "instanceTypeSet/item/networkInfo/efaInfo",
        "no such devices",
    ),
    (
        "instanceTypeSet/item/networkInfo/bandwidthWeightings",
        "nothing is promised",
    ),
    (
        "instanceTypeSet/item/networkInfo/flexibleEnaQueuesSupport",
        "no such devices",
    ),
    (
        "instanceTypeSet/item/networkInfo/connectionTrackingConfiguration",
        "nothing is configured",
    ),
    (
        "instanceTypeSet/item/networkInfo/maximumSecondaryNetworkInterfaces",
        "no secondary networks",
    ),
    (
        "instanceTypeSet/item/networkInfo/ipv4AddressesPerSecondaryInterface",
        "no secondary networks",
    ),
    ("instanceTypeSet/item/gpuInfo", "no such devices"),
    ("instanceTypeSet/item/fpgaInfo", "no such devices"),
    (
        "instanceTypeSet/item/placementGroupInfo/supportedStrategies/item",
        "no placement groups",
    ),
    (
        "instanceTypeSet/item/inferenceAcceleratorInfo",
        "no such devices",
    ),
    ("instanceTypeSet/item/nitroTpmInfo", "no such devices"),
    (
        "instanceTypeSet/item/mediaAcceleratorInfo",
        "no such devices",
    ),
    ("instanceTypeSet/item/neuronInfo", "no such devices"),
    ("instanceTypeSet/item/phcSupport", "no such devices"),
    (
        "instanceTypeSet/item/rebootMigrationSupport",
        "nothing is migrated",
    ),
];

/// Attributes of instances, and the version that had each first.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("instanceType", "2009-10-31"),
    ("kernel", "2009-10-31"),
    ("ramdisk", "2009-10-31"),
    ("userData", "2009-10-31"),
    ("disableApiTermination", "2009-10-31"),
    ("instanceInitiatedShutdownBehavior", "2009-10-31"),
    ("rootDeviceName", "2009-10-31"),
    ("blockDeviceMapping", "2009-10-31"),
    ("sourceDestCheck", "2011-01-01"),
    ("groupSet", "2011-01-01"),
    ("productCodes", "2012-04-01"),
    ("ebsOptimized", "2012-07-20"),
    ("sriovNetSupport", "2013-10-15"),
    ("enaSupport", "2016-04-01"),
    ("enclaveOptions", "2016-11-15"),
    ("disableApiStop", "2016-11-15"),
];

/// Attributes of networks, and the version that had each first.
const VPC_ATTRIBUTES: &[(&str, &str)] = &[
    ("enableDnsSupport", "2013-02-01"),
    ("enableDnsHostnames", "2013-02-01"),
    ("enableNetworkAddressUsageMetrics", "2016-11-15"),
];

/// The requests that together show all that an operation has to say of a running instance and beside
/// it; one without parameters, for an operation that needs none.
pub(crate) fn requests(
    operation: &str,
    version: &str,
    running: &str,
    vpc: VpcId,
) -> Vec<Vec<(&'static str, String)>> {
    let paged_since = match operation {
        "DescribeVolumes" => "2014-09-01",
        "DescribeNetworkInterfaces" | "DescribeInstanceTypes" | "DescribeInstanceTypeOfferings" => {
            "2016-11-15"
        }
        "DescribeInstanceCreditSpecifications" => {
            return vec![vec![("InstanceId.1", running.to_owned())]];
        }
        "DescribeInstanceAttribute" => {
            let known = ATTRIBUTES.iter().filter(|(_, first)| version >= *first);
            let request = |(name, _): &(&str, &str)| {
                vec![
                    ("InstanceId", running.to_owned()),
                    ("Attribute", (*name).to_owned()),
                ]
            };
            return known.map(request).collect();
        }
        "DescribeVpcAttribute" => {
            let known = VPC_ATTRIBUTES.iter().filter(|(_, first)| version >= *first);
            let request = |(name, _): &(&str, &str)| {
                vec![
                    ("VpcId", vpc.to_string()),
                    ("Attribute", (*name).to_owned()),
                ]
            };
            return known.map(request).collect();
        }
        _ => return vec![vec![]],
    };
    let mut requests = vec![vec![]];
    if version >= paged_since {
        requests.push(vec![("MaxResults", "5".to_owned())]);
    }
    requests
}

/// Why there is nothing to say, where that hangs on more than the path; `Some(None)` where there is
/// something although the path alone says otherwise.
pub(crate) fn excuse(
    operation: &str,
    version: Version,
    path: &str,
) -> Option<Option<&'static str>> {
    match operation {
        "DescribeVolumes" if version.as_str() < "2009-10-31" => {
            let is_of_one = path.starts_with("volumeSet/item");
            Some(is_of_one.then_some("no root disk was a volume yet"))
        }
        "DescribeVpcs" | "DescribeSubnets" | "DescribeInstanceCreditSpecifications"
            if path == "nextToken" =>
        {
            Some(Some("there is never a second page"))
        }
        // Of an instance, unlike of an image, more is known.
        "DescribeInstanceAttribute" => Some(match path {
            "userData/value" => Some("the launch gave none; describe.rs has one that did"),
            "ramdisk/value" => Some("a kernel and its ramdisk are one thing here"),
            "sriovNetSupport/value" => Some("no such devices"),
            _ => None,
        }),
        _ => None,
    }
}
