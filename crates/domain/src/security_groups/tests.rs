//! Tables of rules.

use super::*;

fn account() -> AccountId {
    "598916040194".parse().unwrap()
}

fn group() -> SecurityGroup {
    SecurityGroup {
        id: SecurityGroupId::from_random(1),
        owner: account(),
        name: "web".into(),
        description: "Web".into(),
        ingress: vec![],
    }
}

fn rule(traffic: Traffic, source: Source) -> Rule {
    Rule {
        traffic,
        source,
        description: None,
    }
}

fn tcp(from: u16, to: u16) -> Traffic {
    Traffic::Tcp { from, to }
}

fn network(text: &str) -> Source {
    Source::network(text).unwrap()
}

fn peer() -> Source {
    Source::Group {
        owner: account(),
        id: SecurityGroupId::from_random(2),
        name: "peer".into(),
    }
}

fn classic(source: &Source) -> Vec<Rule> {
    CLASSIC.map(|it| rule(it, source.clone())).to_vec()
}

#[test]
fn networks_are_masked_or_refused() {
    for (text, is) in [
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("192.168.1.130/32", "192.168.1.130/32"),
        ("192.168.1.130/24", "192.168.1.0/24"),
        ("255.255.255.255/1", "128.0.0.0/1"),
        ("10.1.2.3/08", "10.0.0.0/8"),
    ] {
        assert!(
            rule(tcp(1, 2), network(text)).to_string().contains(is),
            "{text}"
        );
    }
    assert_eq!(network("10.9.8.7/8"), network("10.0.0.0/8"));
    for text in [
        "",
        "10.0.0.0",
        "10.0.0/8",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "10.0.0.0/008",
        "10.0.0.256/8",
        " 10.0.0.0/8",
        "::/0",
        "010.0.0.0/8",
    ] {
        assert!(Source::network(text).is_err(), "{text}");
    }
}

#[test]
fn traffic_is_read_in_the_words_of_its_time() {
    use Era::{Classic, Numbered};
    for (protocol, from, to, era, is) in [
        ("tcp", Some(80), Some(80), Classic, Some(tcp(80, 80))),
        ("TCP", Some(0), Some(65535), Classic, Some(CLASSIC[0])),
        ("udp", Some(0), Some(65535), Classic, Some(CLASSIC[1])),
        ("icmp", Some(-1), Some(-1), Classic, Some(CLASSIC[2])),
        (
            "icmp",
            Some(8),
            Some(-1),
            Classic,
            Some(Traffic::Icmp { kind: 8, code: -1 }),
        ),
        ("tcp", Some(-1), Some(-1), Classic, None),
        ("tcp", Some(80), Some(65536), Classic, None),
        ("tcp", Some(81), Some(80), Classic, None),
        ("tcp", None, Some(80), Classic, None),
        ("tcp", Some(80), None, Numbered, None),
        ("icmp", Some(-1), Some(0), Classic, None),
        ("icmp", Some(256), Some(0), Classic, None),
        ("icmp", Some(-2), Some(-1), Classic, None),
        ("6", Some(80), Some(80), Classic, None),
        ("-1", None, None, Classic, None),
        ("", None, None, Classic, None),
        ("", None, None, Numbered, None),
        ("6", Some(80), Some(80), Numbered, Some(tcp(80, 80))),
        ("17", Some(0), Some(65535), Numbered, Some(CLASSIC[1])),
        ("1", Some(-1), Some(-1), Numbered, Some(CLASSIC[2])),
        ("-1", Some(1), Some(2), Numbered, Some(Traffic::All)),
        (
            "50",
            None,
            None,
            Numbered,
            Some(Traffic::Other { protocol: 50 }),
        ),
        ("+50", None, None, Numbered, None),
        ("256", None, None, Numbered, None),
        ("58", Some(-1), Some(-1), Numbered, None),
        ("icmpv6", Some(-1), Some(-1), Numbered, None),
        ("gre", None, None, Numbered, None),
    ] {
        let found = Traffic::parse(protocol, from, to, era).ok();
        assert_eq!(found, is, "{protocol} {from:?} {to:?} {era:?}");
    }
}

#[test]
fn the_same_rule_in_other_words_is_a_duplicate() {
    let mut web = group();
    let given = rule(tcp(22, 22), network("192.168.1.130/24"));
    web.authorize(vec![given], Era::Classic).unwrap();
    let before = web.clone();
    let same = rule(
        Traffic::parse("6", Some(22), Some(22), Era::Numbered).unwrap(),
        network("192.168.1.77/24"),
    );
    let refused = web.clone().authorize(vec![same.clone()], Era::Numbered);
    assert!(matches!(
        refused,
        Err(Error::AlreadyExists {
            resource: Resource::Permission,
            ..
        })
    ));
    // Another description makes no other rule.
    let described = Rule {
        description: Some("x".into()),
        ..same.clone()
    };
    assert!(
        web.clone()
            .authorize(vec![described], Era::Numbered)
            .is_err()
    );
    // Twice in one request, too.
    let new = rule(tcp(80, 80), network("0.0.0.0/0"));
    assert!(
        web.clone()
            .authorize(vec![new.clone(), new], Era::Classic)
            .is_err()
    );
    assert_eq!(web, before);
    web.revoke(vec![same.clone()], Era::Numbered).unwrap();
    assert_eq!(web.ingress, vec![]);
    assert!(matches!(
        web.revoke(vec![same], Era::Numbered),
        Err(Error::NotFound {
            resource: Resource::Permission,
            ..
        })
    ));
}

#[test]
fn a_whole_group_is_three_permissions_in_classic_words() {
    let mut web = group();
    let all = vec![rule(Traffic::All, peer())];
    web.authorize(classic(&peer()), Era::Classic).unwrap();
    assert_eq!(web.ingress, all);
    let shown: Vec<Traffic> = web
        .permissions(Era::Classic)
        .iter()
        .map(|it| it.traffic)
        .collect();
    assert_eq!(shown, CLASSIC);
    assert_eq!(web.permissions(Era::Numbered).len(), 1);
    // What is shown is there, one by one and together.
    for one in classic(&peer()) {
        assert!(web.clone().authorize(vec![one], Era::Classic).is_err());
    }
    assert!(web.clone().authorize(all.clone(), Era::Classic).is_err());
    // And can be taken away one by one, in any order.
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let mut web = web.clone();
        for (taken, place) in (1..).zip(order) {
            let one = classic(&peer()).remove(place);
            web.revoke(vec![one], Era::Classic).unwrap();
            assert_eq!(web.permissions(Era::Classic).len(), 3 - taken);
        }
    }
    web.revoke(all, Era::Classic).unwrap();
    assert_eq!(web.ingress, vec![]);
}

#[test]
fn three_rules_that_came_one_by_one_are_all_of_a_group() {
    let mut web = group();
    for one in classic(&peer()) {
        web.authorize(vec![one], Era::Classic).unwrap();
    }
    web.authorize(
        vec![rule(tcp(0, 65535), network("10.0.0.0/8"))],
        Era::Classic,
    )
    .unwrap();
    let all = vec![rule(Traffic::All, peer())];
    assert!(web.clone().authorize(all.clone(), Era::Classic).is_err());
    assert!(
        web.clone()
            .revoke(
                vec![rule(Traffic::All, network("10.0.0.0/8"))],
                Era::Classic
            )
            .is_err()
    );
    // Where protocols have numbers, all of them is more than these three.
    assert!(web.clone().revoke(all.clone(), Era::Numbered).is_err());
    let mut more = web.clone();
    more.authorize(all.clone(), Era::Numbered).unwrap();
    assert_eq!(more.ingress.len(), 5);
    web.revoke(all, Era::Classic).unwrap();
    assert_eq!(
        web.ingress,
        vec![rule(tcp(0, 65535), network("10.0.0.0/8"))]
    );
}

#[test]
fn rules_of_one_traffic_are_one_permission() {
    let mut web = group();
    let rules = [
        rule(tcp(80, 80), network("10.0.0.0/8")),
        rule(tcp(22, 22), network("10.0.0.0/8")),
        rule(tcp(80, 80), peer()),
        rule(tcp(80, 80), network("0.0.0.0/0")),
    ];
    web.authorize(rules.to_vec(), Era::Numbered).unwrap();
    let permissions = web.permissions(Era::Numbered);
    assert_eq!(permissions.len(), 2);
    assert_eq!(permissions[0].rules, [&rules[0], &rules[2], &rules[3]]);
    assert_eq!(permissions[1].rules, [&rules[1]]);
}

#[test]
fn rules_have_ids_of_their_own() {
    let sources = [
        network("10.0.0.0/8"),
        network("10.0.0.0/9"),
        peer(),
        Source::Nobody,
    ];
    let traffics = [
        Traffic::All,
        tcp(1, 2),
        tcp(2, 1),
        Traffic::Udp { from: 1, to: 2 },
        Traffic::Icmp { kind: -1, code: -1 },
        Traffic::Icmp { kind: 1, code: -1 },
        Traffic::Icmp { kind: 1, code: 1 },
        Traffic::Other { protocol: 50 },
    ];
    let mut ids = std::collections::BTreeSet::new();
    for (traffic, source) in traffics
        .iter()
        .flat_map(|traffic| sources.iter().map(move |source| (traffic, source)))
    {
        let mut rule = rule(*traffic, source.clone());
        for number in 1..3 {
            assert!(ids.insert(rule.id_in(SecurityGroupId::from_random(number))));
        }
        let id = rule.id_in(SecurityGroupId::from_random(1));
        rule.description = Some("web".into());
        assert_eq!(rule.id_in(SecurityGroupId::from_random(1)), id);
    }
}

#[test]
fn a_group_has_a_hundred_rules_and_no_more() {
    let mut web = group();
    let port = |it: u16| rule(tcp(it, it), network("0.0.0.0/0"));
    web.authorize((0..99).map(port).collect(), Era::Classic)
        .unwrap();
    let refused = web
        .clone()
        .authorize(vec![port(200), port(201)], Era::Classic);
    assert!(matches!(
        refused,
        Err(Error::LimitExceeded {
            resource: Resource::Permission,
            ..
        })
    ));
    web.authorize(vec![port(200)], Era::Classic).unwrap();
    assert_eq!(web.ingress.len(), RULES_MAX);
}

#[test]
fn what_is_left_of_all_traffic_has_a_place_or_nothing_goes() {
    let mut web = group();
    let port = |it: u16| rule(tcp(it, it), network("0.0.0.0/0"));
    web.authorize((0..98).map(port).collect(), Era::Classic)
        .unwrap();
    web.authorize(vec![rule(Traffic::All, peer())], Era::Classic)
        .unwrap();
    let [of_tcp, of_udp, _] = CLASSIC.map(|it| rule(it, peer()));
    // 99 and one more are as many as there may be.
    let mut fits = web.clone();
    fits.revoke(vec![of_tcp.clone()], Era::Classic).unwrap();
    assert_eq!(fits.ingress.len(), RULES_MAX);
    // Full, and one rule would become two.
    web.authorize(vec![port(200)], Era::Classic).unwrap();
    let refused = web.clone().revoke(vec![of_tcp.clone()], Era::Classic);
    assert!(matches!(
        refused,
        Err(Error::LimitExceeded {
            resource: Resource::Permission,
            ..
        })
    ));
    // Together with another, or as a whole, it goes.
    for other in [of_udp, port(7)] {
        let mut web = web.clone();
        web.revoke(vec![of_tcp.clone(), other], Era::Classic)
            .unwrap();
        assert!(web.ingress.len() <= RULES_MAX);
    }
    web.revoke(vec![rule(Traffic::All, peer())], Era::Classic)
        .unwrap();
    assert_eq!(web.ingress.len(), 99);
}

#[test]
fn what_classic_words_show_once_is_revoked_once() {
    // All traffic and TCP beside it, as only later versions grant them.
    let mut web = group();
    let [of_tcp, of_udp, of_icmp] = CLASSIC.map(|it| rule(it, peer()));
    let all = rule(Traffic::All, peer());
    web.authorize(vec![all.clone(), of_tcp.clone()], Era::Numbered)
        .unwrap();
    assert_eq!(web.permissions(Era::Classic).len(), 3);
    let mut less = web.clone();
    less.revoke(vec![of_tcp.clone()], Era::Classic).unwrap();
    assert_eq!(less.ingress, [of_udp, of_icmp]);
    let mut none = web.clone();
    none.revoke(vec![all.clone()], Era::Classic).unwrap();
    assert_eq!(none.ingress, []);
    // Later versions tell them apart.
    let mut apart = web.clone();
    apart.revoke(vec![of_tcp.clone()], Era::Numbered).unwrap();
    assert_eq!(apart.ingress, std::slice::from_ref(&all));
    web.revoke(vec![all], Era::Numbered).unwrap();
    assert_eq!(web.ingress, [of_tcp]);
}

#[test]
fn what_is_taken_away_goes_whole_or_not_at_all() {
    let mut web = group();
    let there = rule(tcp(80, 80), network("0.0.0.0/0"));
    let not_there = rule(tcp(81, 81), network("0.0.0.0/0"));
    web.authorize(vec![there.clone()], Era::Classic).unwrap();
    assert!(
        web.clone()
            .revoke(vec![there.clone(), not_there], Era::Classic)
            .is_err()
    );
    assert!(
        web.clone()
            .revoke(vec![there.clone(), there], Era::Classic)
            .is_err()
    );
}

#[test]
fn names_and_descriptions_are_checked() {
    let long = "x".repeat(255);
    for good in ["WebServers", "Mary's Apache group", "sg: #1", &long] {
        check_new_name(good).unwrap();
        check_description(good).unwrap();
    }
    for (bad, why) in [
        ("", "contain the parameter GroupName"),
        ("  ", "contain the parameter GroupName"),
        ("default", "reserved"),
        ("a\nb", "printable ASCII"),
        ("gr\u{fc}n", "printable ASCII"),
        (&format!("{long}x"), "at most 255"),
    ] {
        let error = check_new_name(bad).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(check_description("").is_err() && check_description("default").is_ok());
    assert!(check_rule_description("").is_ok() && check_rule_description("\u{0}").is_err());
}

#[test]
fn the_default_group_follows_from_its_account() {
    let group = SecurityGroup::default_of(account());
    assert_eq!(group, SecurityGroup::default_of(account()));
    assert!(group.names(group.id));
    assert_eq!(group.permissions(Era::Classic).len(), 3);
    // Stored nowhere, so it may never change.
    assert_eq!(group.id.to_string(), "sg-3941c0208e1e180f9");
}
