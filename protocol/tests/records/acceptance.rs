//! What a set of records adds up to, whatever their order.

use std::collections::BTreeMap;

use cairn_protocol::accept::{Ledger, Refusal, Verdict};
use cairn_protocol::hash::{RecordId, RepositoryId};
use cairn_protocol::limits::RECORDS_WAITING_MAX;
use cairn_protocol::name::RepoKind;
use cairn_protocol::record::{Body, Link, NamesTarget, Record, Role, RootKeys, Rows, Visibility};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::targets::{HOLDER, History, Item, assert_same};
use crate::world::{
    HOME, NEXT_HOME, NEXT_ROOT, PUBLISHER, RECOVERY, ROOT, Realm, STRANGER, World, account_body,
    first, key, later, name, namespace_body, publisher,
};

/// Puts items into an order that the indices say.
fn permuted(items: &[Item], order: &[Index]) -> Vec<Item> {
    let mut left = items.to_vec();
    let mut permuted = Vec::new();
    for index in order.iter().cycle() {
        if left.is_empty() {
            break;
        }
        permuted.push(left.swap_remove(index.index(left.len())));
    }
    permuted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn state_does_not_depend_on_order(
        bytes in proptest::collection::vec(any::<u8>(), 100..500),
        order in proptest::collection::vec(any::<Index>(), 80),
    ) {
        let history = History::new(&bytes);
        let mut straight = Ledger::default();
        for item in &history.items {
            item.insert_into(&mut straight);
        }
        let mut shuffled = Ledger::default();
        for item in permuted(&history.items, &order) {
            item.insert_into(&mut shuffled);
        }
        assert_same(&history.state(&straight), &history.state(&shuffled));
    }

    #[test]
    fn a_lower_version_never_replaces_a_higher(
        count in 2_u64..12,
        order in proptest::collection::vec(any::<Index>(), 20),
        carried in any::<Index>(),
    ) {
        let mut world = World::new();
        let old = world.realm.heads(count, None);
        let base = carried.get(&old).clone();
        let (epoch, rows, next) = world.next_epoch(&world.namespace, Some(&base));
        let new = next.heads(count, Some(&base));
        let mut items = vec![Item::Record(Box::new(epoch)), Item::Rows(rows)];
        items.extend(old.iter().chain(&new).map(|head| Item::Record(Box::new(head.clone()))));
        let mut highest = (0, 0);
        for item in permuted(&items, &order) {
            item.insert_into(&mut world.ledger);
            let epoch = world.ledger.namespace(&world.realm.namespace).unwrap().epoch;
            let view = world.ledger.repository(&world.realm.repository);
            let Some(head) = view.and_then(|view| view.head) else { continue };
            let version = (head.epoch, head.seq);
            // Only the root's new epoch takes heads back, to the one that it carries.
            if epoch == 2 && highest.0 == 1 && version.0 == 1 {
                prop_assert_eq!(head.id, base.id());
            } else {
                prop_assert!(version >= highest, "{:?} after {:?}", version, highest);
            }
            highest = version;
        }
        prop_assert_eq!(highest, (2, count));
    }

    #[test]
    fn two_heads_of_one_seq_freeze_and_a_new_epoch_thaws(
        count in 2_u64..8,
        at in any::<Index>(),
        order in proptest::collection::vec(any::<Index>(), 20),
        late in any::<bool>(),
    ) {
        let mut world = World::new();
        let heads = world.realm.heads(count, None);
        let fork = at.index(heads.len());
        let before = fork.checked_sub(1).map(|index| heads[index].clone());
        let seq = fork as u64 + 1;
        let rival = world.realm.head(seq, before.as_ref(), 1, &[]);
        let after = world.realm.head(seq + 1, Some(&rival), 1, &[]);
        let mut items: Vec<Item> = Vec::new();
        let all = heads.iter().chain([&rival, &after]);
        items.extend(all.map(|head| Item::Record(Box::new(head.clone()))));
        for item in permuted(&items, &order) {
            item.insert_into(&mut world.ledger);
        }
        let mut proof = [heads[fork].id(), rival.id()];
        proof.sort();
        let view = world.ledger.repository(&world.realm.repository).unwrap();
        prop_assert_eq!(view.frozen, Some(proof));
        prop_assert_eq!(view.next, None);
        prop_assert_eq!(world.head(), before.as_ref().map(Record::id));
        let next = world.realm.head(count + 1, heads.last(), 2, &[]);
        prop_assert_eq!(world.insert(&next), Verdict::Frozen(proof));

        // The root names a survivor, on either branch: the last honest head, or the rival's end.
        let survivor = if late { heads.last().unwrap() } else { &after };
        let (epoch, rows, realm) = world.next_epoch(&world.namespace, Some(survivor));
        prop_assert_eq!(world.insert(&epoch), Verdict::Accepted);
        prop_assert_eq!(world.head(), None, "which heads it carries is not known");
        prop_assert_eq!(world.ledger.insert_rows(rows), Verdict::Accepted);
        prop_assert_eq!(world.head(), Some(survivor.id()));
        prop_assert!(!world.is_frozen());
        let thawed = realm.head(1, Some(survivor), 3, &[]);
        prop_assert_eq!(world.insert(&thawed), Verdict::Accepted);
        prop_assert_eq!(world.head(), Some(thawed.id()));
    }
}

/// Whether a head took in a change that no role entitles.
fn has_head_under_account(history: &History, ledger: &Ledger) -> bool {
    history.items.iter().any(|item| match item {
        Item::Record(record) if matches!(record.body(), Body::Change(_)) => {
            let repository = record.header().repository.expect("of a change");
            record.header().signers[0] == key(HOLDER).public()
                && ledger.taken_in(&repository, &record.id()).is_some()
        }
        _ => false,
    })
}

/// The histories above would prove nothing if nothing happened in them.
#[test]
fn generated_histories_reach_the_states_that_matter() {
    let mut seen = BTreeMap::new();
    let mut state = 1_u64;
    for _ in 0..150 {
        let bytes: Vec<u8> = (0..400)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        let history = History::new(&bytes);
        let mut ledger = Ledger::default();
        for item in &history.items {
            let verdict = match item.insert_into(&mut ledger) {
                Verdict::Frozen(_) => "frozen",
                Verdict::Refused(_) => "refused",
                Verdict::Kept => "kept",
                Verdict::Waiting => "waiting",
                Verdict::Accepted => "accepted",
                Verdict::Known => "known",
            };
            *seen.entry(verdict).or_insert(0) += 1;
        }
        let namespace = ledger.namespace(&history.namespace_id()).unwrap();
        let mut count =
            |what, happened: bool| *seen.entry(what).or_insert(0) += u32::from(happened);
        count("namespace frozen", namespace.frozen.is_some());
        count("later epoch", namespace.epoch > 1);
        count("rows missing", namespace.lacks_rows);
        for repository in ledger.repositories() {
            count("repository frozen", repository.frozen.is_some());
            if let Some(head) = repository.head {
                count("head with changes", !head.changes.is_empty());
                count("head carried", head.epoch < namespace.epoch);
                count("head of a later epoch", head.epoch > 1);
                count("third head", head.seq > 2);
            }
        }
        count(
            "name",
            ledger.names(&history.namespace_id()).next().is_some(),
        );
        let fresh = ledger.freshness(&history.namespace_id(), Visibility::Public);
        count("freshness", fresh.is_some());
        let accounts: Vec<_> = ledger.accounts(&history.namespace_id()).collect();
        count("account", !accounts.is_empty());
        count(
            "account revoked",
            accounts.iter().any(|view| view.body.revoked),
        );
        count(
            "account of a later epoch",
            accounts.iter().any(|view| view.epoch > 1),
        );
        count(
            "second account record",
            accounts.iter().any(|view| view.seq > 1),
        );
        count(
            "head under an account",
            has_head_under_account(&history, &ledger),
        );
    }
    for what in [
        "frozen",
        "refused",
        "kept",
        "waiting",
        "accepted",
        "namespace frozen",
        "later epoch",
        "repository frozen",
        "head with changes",
        "head carried",
        "head of a later epoch",
        "third head",
        "name",
        "freshness",
        "account",
        "account revoked",
        "account of a later epoch",
        "second account record",
        "head under an account",
    ] {
        assert!(
            seen.get(what).is_some_and(|count| *count >= 5),
            "{what}: {seen:?}"
        );
    }
}

#[test]
fn a_gap_waits_and_then_all_of_it_counts() {
    let mut world = World::new();
    let heads = world.realm.heads(5, None);
    for head in heads.iter().skip(1).rev() {
        assert_eq!(world.insert(head), Verdict::Waiting);
        assert_eq!(world.head(), None);
    }
    let view = world.ledger.repository(&world.realm.repository).unwrap();
    assert_eq!(
        view.next, None,
        "a home that lacks its own heads signs none"
    );
    assert_eq!(world.ledger.waiting(), 4);
    assert_eq!(world.insert(&heads[0]), Verdict::Accepted);
    assert_eq!(world.head(), Some(heads[4].id()));
    assert_eq!(world.ledger.waiting(), 0);
    assert_eq!(world.insert(&heads[2]), Verdict::Known);
    let view = world.ledger.repository(&world.realm.repository).unwrap();
    assert_eq!(
        view.next,
        Some(Link {
            seq: 6,
            prev: Some(heads[4].id())
        })
    );
}

#[test]
fn a_head_waits_for_the_changes_it_takes_in() {
    let mut world = World::new();
    let change = world.realm.change(1, PUBLISHER);
    let unsigned = world.realm.change(2, STRANGER);
    let one = world.realm.head(1, None, 0, &[&change]);
    let two = world.realm.head(2, Some(&one), 0, &[&unsigned]);
    assert_eq!(world.insert(&one), Verdict::Waiting);
    assert_eq!(world.insert(&change), Verdict::Accepted);
    assert_eq!(world.head(), Some(one.id()));
    assert_eq!(
        world.ledger.taken_in(&world.realm.repository, &change.id()),
        Some(one.id())
    );
    assert_eq!(world.insert(&two), Verdict::Waiting);
    assert_eq!(
        world.insert(&unsigned),
        Verdict::Waiting,
        "the role may yet be granted"
    );
    assert_eq!(world.head(), Some(one.id()));
    assert_eq!(
        world
            .ledger
            .taken_in(&world.realm.repository, &unsigned.id()),
        None
    );
    let mut granting = namespace_body();
    granting.delegated = vec![publisher(STRANGER)];
    let granted = later(&world.namespace, (1, 2), granting, &[ROOT]);
    assert_eq!(world.insert(&granted), Verdict::Accepted);
    assert_eq!(world.head(), Some(two.id()));
    let may = |seed: u8| {
        world.ledger.may_publish(
            &world.realm.namespace,
            &key(seed).public(),
            &world.realm.repository,
            "refs/heads/main",
        )
    };
    assert!(may(STRANGER));
    assert!(may(PUBLISHER), "what an epoch granted holds until it ends");
    assert!(!may(HOME));
}

#[test]
fn a_change_of_another_repository_or_epoch_is_not_taken_in() {
    let mut world = World::new();
    let elsewhere = Realm {
        repository: RepositoryId::from_bytes([7; 32]),
        ..world.realm
    };
    let change = elsewhere.change(1, PUBLISHER);
    assert_eq!(world.insert(&change), Verdict::Accepted);
    let head = world.realm.head(1, None, 0, &[&change]);
    assert_eq!(world.insert(&head), Verdict::Waiting);
    assert_eq!(world.head(), None);

    let mut world = World::new();
    let base = world.realm.head(1, None, 0, &[]);
    let stale = world.realm.change(1, PUBLISHER);
    let (epoch, rows, realm) = world.next_epoch(&world.namespace, Some(&base));
    for record in [&base, &stale, &epoch] {
        world.insert(record);
    }
    world.ledger.insert_rows(rows);
    let head = realm.head(1, Some(&base), 0, &[&stale]);
    assert_eq!(world.insert(&head), Verdict::Waiting);
    assert_eq!(world.head(), Some(base.id()));
}

#[test]
fn roles_hold_where_they_were_granted() {
    let mut body = namespace_body();
    let mut scoped = publisher(PUBLISHER);
    scoped.refs = Some(vec!["refs/heads/release/*".to_owned()]);
    let mut elsewhere = publisher(STRANGER);
    elsewhere.repositories = Some(vec![RepositoryId::from_bytes([7; 32])]);
    let mut account = publisher(NEXT_HOME);
    account.roles = vec![Role::Account, Role::Freshness];
    let mut ended = publisher(NEXT_ROOT);
    ended.end = Some(0);
    body.delegated = vec![scoped, elsewhere, account, ended];
    let mut world = World::with(body);
    let realm = world.realm;
    for (signer, reference, expected) in [
        (PUBLISHER, "refs/heads/release/1", Verdict::Accepted),
        (PUBLISHER, "refs/heads/main", Verdict::Waiting),
        (STRANGER, "refs/heads/main", Verdict::Waiting),
        (NEXT_HOME, "refs/heads/main", Verdict::Waiting),
        (HOME, "refs/heads/main", Verdict::Waiting),
        (ROOT, "refs/heads/main", Verdict::Waiting),
        (NEXT_ROOT, "refs/heads/main", Verdict::Accepted),
    ] {
        let change = realm.change_of(1, signer, reference);
        assert_eq!(world.insert(&change), expected, "{signer} {reference}");
    }
    let one = Link { seq: 1, prev: None };
    assert_eq!(
        world.insert(&realm.freshness(one, 0, PUBLISHER)),
        Verdict::Waiting
    );
    let fresh = realm.freshness(one, 0, NEXT_HOME);
    assert_eq!(world.insert(&fresh), Verdict::Accepted);
    let two = Link {
        seq: 2,
        prev: Some(fresh.id()),
    };
    assert_eq!(
        world
            .ledger
            .next_freshness(&realm.namespace, Visibility::Public),
        Some(two)
    );
    let second = realm.freshness(two, 1, HOME);
    assert_eq!(world.insert(&second), Verdict::Accepted);
    let shown = world.ledger.freshness(&realm.namespace, Visibility::Public);
    assert_eq!(shown.map(|(id, _)| id), Some(second.id()));
}

#[test]
fn strangers_and_other_namespaces_are_refused() {
    let mut world = World::new();
    let forged = Realm {
        home: STRANGER,
        ..world.realm
    };
    let refused = Verdict::Refused(Refusal::NotEntitled);
    assert_eq!(world.insert(&forged.head(1, None, 0, &[])), refused);
    assert_eq!(world.insert(&forged.repository_record("b")), refused);
    let one = Link { seq: 1, prev: None };
    assert_eq!(world.insert(&forged.names(one, "a", None)), refused);

    // Another namespace, in which the same key is home, says nothing of this repository.
    let mut body = namespace_body();
    body.root.keys = vec![key(STRANGER).public()];
    let other = first(body, &[STRANGER]);
    assert_eq!(world.insert(&other), Verdict::Accepted);
    let trespasser = Realm {
        namespace: other.namespace(),
        ..world.realm
    };
    let elsewhere = Verdict::Refused(Refusal::OtherNamespace);
    assert_eq!(world.insert(&trespasser.head(1, None, 0, &[])), elsewhere);
    assert_eq!(world.insert(&trespasser.change(1, PUBLISHER)), elsewhere);
    assert_eq!(world.head(), None);
    assert_eq!(world.ledger.waiting(), 0, "nothing of it was kept");

    // Before the repository is known its heads may wait, and still come to nothing.
    let mut ledger = Ledger::default();
    let head = trespasser.head(1, None, 0, &[]);
    assert_eq!(ledger.insert(&other), Verdict::Accepted);
    assert_eq!(ledger.insert(&head), Verdict::Waiting);
    assert_eq!(ledger.insert(&world.namespace), Verdict::Accepted);
    assert_eq!(ledger.insert(&world.repository), Verdict::Accepted);
    assert_eq!(
        ledger.repository(&world.realm.repository).unwrap().head,
        None
    );
}

#[test]
fn what_came_before_its_namespace_counts_once_it_is_there() {
    let world = World::new();
    let heads = world.realm.heads(2, None);
    let mut ledger = Ledger::default();
    for record in heads.iter().chain([&world.repository]) {
        assert_eq!(ledger.insert(record), Verdict::Waiting);
    }
    assert_eq!(ledger.namespace(&world.realm.namespace), None);
    assert_eq!(ledger.repositories().count(), 0);
    assert_eq!(ledger.insert(&world.namespace), Verdict::Accepted);
    let view = ledger.repository(&world.realm.repository).unwrap();
    assert_eq!(view.head.map(|head| head.id), Some(heads[1].id()));
    assert_eq!(view.body.name.as_str(), "Model");
    assert_eq!(ledger.waiting(), 0);
}

#[test]
fn a_new_epoch_keeps_what_it_carries_and_nothing_else() {
    let mut world = World::new();
    let heads = world.realm.heads(3, None);
    let lost = world.realm.repository_record("lost");
    let one = Link { seq: 1, prev: None };
    let target = Some(NamesTarget::Repository(world.realm.repository));
    let named = world.realm.names(one, "name", target.clone());
    for record in heads.iter().chain([&lost, &named]) {
        assert_eq!(world.insert(record), Verdict::Accepted);
    }
    let (epoch, rows, realm) = world.next_epoch(&world.namespace, Some(&heads[1]));
    assert_eq!(world.ledger.insert_rows(rows), Verdict::Waiting);
    assert_eq!(world.insert(&epoch), Verdict::Accepted);
    assert_eq!(
        world.head(),
        Some(heads[1].id()),
        "the root took the third back"
    );
    assert_eq!(world.ledger.repository(&lost.id().into()), None);
    let model = |ledger: &Ledger| {
        let found = ledger.name(&realm.namespace, RepoKind::Model, &name("name"));
        found.cloned()
    };
    assert_eq!(model(&world.ledger), None, "names are signed anew");
    let link = world
        .ledger
        .next_name(&realm.namespace, RepoKind::Model, &name("name"));
    let expected = Link {
        seq: 1,
        prev: Some(named.id()),
    };
    assert_eq!(link, Some(expected));
    assert_eq!(
        world.insert(&realm.names(expected, "name", target.clone())),
        Verdict::Accepted
    );
    assert_eq!(model(&world.ledger), target);

    // The home of the epoch before has nothing more to say.
    let late = world.realm.head(4, Some(&heads[2]), 0, &[]);
    assert_eq!(world.insert(&late), Verdict::Kept);
    let usurped = Realm {
        home: HOME,
        ..realm
    };
    assert_eq!(
        world.insert(&usurped.head(1, Some(&heads[1]), 0, &[])),
        Verdict::Refused(Refusal::NotEntitled)
    );
    let wrong = realm.head(1, Some(&heads[2]), 0, &[]);
    assert_eq!(
        world.insert(&wrong),
        Verdict::Waiting,
        "it must follow what is carried"
    );
    assert_eq!(world.head(), Some(heads[1].id()));
}

#[test]
fn a_newcomer_starts_at_the_carried_head() {
    let mut world = World::new();
    let heads = world.realm.heads(3, None);
    let (epoch, rows, realm) = world.next_epoch(&world.namespace, Some(&heads[2]));
    let next = realm.head(1, Some(&heads[2]), 0, &[]);
    world.insert(&epoch);
    world.ledger.insert_rows(rows);
    let view = world.ledger.repository(&world.realm.repository).unwrap();
    let link = Link {
        seq: 1,
        prev: Some(heads[2].id()),
    };
    assert_eq!((view.head, view.next), (None, Some(link)));
    assert_eq!(world.insert(&heads[2]), Verdict::Accepted);
    assert_eq!(world.head(), Some(heads[2].id()));
    assert_eq!(world.insert(&next), Verdict::Accepted);
    assert_eq!(world.head(), Some(next.id()));
    assert_eq!(world.insert(&heads[0]), Verdict::Kept);
}

#[test]
fn a_carried_head_needs_its_changes_and_keeps_its_history() {
    let mut world = World::new();
    let change = world.realm.change(1, PUBLISHER);
    let dropped = world.realm.change(2, PUBLISHER);
    let one = world.realm.head(1, None, 0, &[&change]);
    let two = world.realm.head(2, Some(&one), 0, &[]);
    let three = world.realm.head(3, Some(&two), 0, &[&dropped]);
    let (epoch, rows, realm) = world.next_epoch(&world.namespace, Some(&one));
    world.insert(&epoch);
    world.ledger.insert_rows(rows);
    assert_eq!(world.insert(&one), Verdict::Waiting);
    assert_eq!(world.head(), None, "its change is not known");
    assert_eq!(world.insert(&change), Verdict::Kept);
    assert_eq!(world.head(), Some(one.id()));
    for record in [&dropped, &two, &three] {
        assert_eq!(world.insert(record), Verdict::Kept);
    }
    let next = realm.head(1, Some(&one), 0, &[]);
    assert_eq!(world.insert(&next), Verdict::Accepted);
    let taken = |change: &Record| {
        let repository = world.realm.repository;
        world.ledger.taken_in(&repository, &change.id())
    };
    assert_eq!(
        taken(&change),
        Some(one.id()),
        "in the history of the head in force"
    );
    assert_eq!(taken(&dropped), None, "in a head that the root took back");
}

#[test]
fn a_key_without_a_role_waits_only_while_it_may_get_one() {
    for (body, expected) in [
        (namespace_body(), Verdict::Refused(Refusal::NotEntitled)),
        (with_recovery(), Verdict::Waiting),
    ] {
        let mut world = World::with(body.clone());
        let change = |nonce| world.realm.change(nonce, STRANGER);
        let (in_force, over) = (change(1), change(2));
        assert_eq!(world.insert(&in_force), Verdict::Waiting);
        let next = later(&world.namespace, (2, 1), body, &[ROOT]);
        assert_eq!(world.insert(&next), Verdict::Accepted);
        // The recovery key might yet put another record in the place of the second epoch.
        assert_eq!(world.insert(&over), expected);
    }
}

#[test]
fn names_lead_where_their_newest_record_says() {
    let mut world = World::new();
    let realm = world.realm;
    let repository = NamesTarget::Repository(realm.repository);
    let redirect = NamesTarget::Redirect(name("other"));
    let mut prev: Option<RecordId> = None;
    for (seq, target) in [(1, Some(repository)), (2, Some(redirect)), (3, None)] {
        let record = realm.names(Link { seq, prev }, "name", target.clone());
        assert_eq!(world.insert(&record), Verdict::Accepted);
        let shown = world
            .ledger
            .name(&realm.namespace, RepoKind::Model, &name("name"));
        assert_eq!(shown, target.as_ref());
        let dataset = world
            .ledger
            .name(&realm.namespace, RepoKind::Dataset, &name("name"));
        assert_eq!(dataset, None);
        prev = Some(record.id());
    }
    let four = Link { seq: 4, prev };
    let one = realm.names(four, "name", None);
    let other = realm.names(four, "name", Some(NamesTarget::Redirect(name("x"))));
    assert_eq!(world.insert(&other), Verdict::Accepted);
    assert!(matches!(world.insert(&one), Verdict::Frozen(_)));
    assert_eq!(
        world
            .ledger
            .name(&realm.namespace, RepoKind::Model, &name("name")),
        None,
        "as it was before the two"
    );
    let next = world
        .ledger
        .next_name(&realm.namespace, RepoKind::Model, &name("name"));
    assert_eq!(next, None);
}

#[test]
fn root_changes_need_the_old_and_the_new_threshold() {
    let keys = |seeds: &[u8], threshold| RootKeys {
        keys: seeds.iter().map(|seed| key(*seed).public()).collect(),
        threshold,
    };
    let mut body = namespace_body();
    body.root = keys(&[11, 12, 13], 2);
    let mut ledger = Ledger::default();
    let refused = |refusal| Verdict::Refused(refusal);
    let single = first(body.clone(), &[11]);
    assert_eq!(ledger.insert(&single), refused(Refusal::Threshold));
    let stray = first(body.clone(), &[11, 12, STRANGER]);
    assert_eq!(ledger.insert(&stray), refused(Refusal::Stranger));
    assert_eq!(ledger.namespaces().count(), 0);
    let begun = first(body.clone(), &[11, 13]);
    assert_eq!(ledger.insert(&begun), Verdict::Accepted);

    let mut rotated = body.clone();
    rotated.root = keys(&[13, 14, 15], 2);
    for (seeds, expected) in [
        (&[11, 12][..], refused(Refusal::Threshold)),
        (&[14, 15], refused(Refusal::Threshold)),
        (&[13, 14], refused(Refusal::Threshold)),
        (&[11, 12, 14, STRANGER], refused(Refusal::Stranger)),
        (&[11, 13, 14], Verdict::Accepted),
    ] {
        let record = later(&begun, (1, 2), rotated.clone(), seeds);
        assert_eq!(ledger.insert(&record), expected, "{seeds:?}");
    }
    let mut moved = body.clone();
    moved.home = key(NEXT_HOME).public();
    let record = later(&begun, (1, 2), moved.clone(), &[11, 12]);
    assert_eq!(ledger.insert(&record), refused(Refusal::Home));
    let mut carrying = body.clone();
    carrying.carried = Some(Rows::default().hash());
    let record = later(&begun, (1, 2), carrying, &[11, 12]);
    assert_eq!(ledger.insert(&record), refused(Refusal::Carried));
    for version in [(1, 3), (2, 2), (3, 1)] {
        let record = later(&begun, version, moved.clone(), &[11, 12]);
        assert_eq!(
            ledger.insert(&record),
            refused(Refusal::Version),
            "{version:?}"
        );
    }
}

fn with_recovery() -> cairn_protocol::record::Namespace {
    let mut body = namespace_body();
    body.recovery = Some(key(RECOVERY).public().fingerprint());
    body
}

#[test]
fn two_namespace_records_of_one_version_freeze_until_recovery_names_one() {
    let mut world = World::with(with_recovery());
    let head = world.realm.head(1, None, 0, &[]);
    world.insert(&head);
    let mut other = with_recovery();
    other.delegated.clear();
    let a = later(&world.namespace, (1, 2), with_recovery(), &[ROOT]);
    let b = later(&world.namespace, (1, 2), other.clone(), &[ROOT]);
    let mut proof = [a.id(), b.id()];
    proof.sort();
    assert_eq!(world.insert(&a), Verdict::Accepted);
    assert_eq!(world.insert(&b), Verdict::Frozen(proof));
    let view = world.ledger.namespace(&world.realm.namespace).unwrap();
    assert_eq!(view.frozen, Some(proof));
    assert_eq!(view.record, world.namespace.id(), "the last agreed one");
    let repository = world.ledger.repository(&world.realm.repository).unwrap();
    assert_eq!(repository.head.map(|head| head.id), Some(head.id()));
    assert_eq!(repository.next, None, "no home signs under a frozen root");

    // The root alone cannot end it, on either branch.
    let c = later(&a, (1, 3), with_recovery(), &[ROOT]);
    assert_eq!(world.insert(&c), Verdict::Frozen(proof));
    // The recovery key can, and the thief of the root gets no further.
    let mut saved = other;
    saved.root.keys = vec![key(NEXT_ROOT).public()];
    let named = later(&b, (1, 3), saved, &[RECOVERY, NEXT_ROOT]);
    assert_eq!(world.insert(&named), Verdict::Accepted);
    let view = world.ledger.namespace(&world.realm.namespace).unwrap();
    assert_eq!((view.record, view.frozen), (named.id(), None));
    let late = later(&c, (2, 1), with_recovery(), &[ROOT]);
    assert_eq!(world.insert(&late), Verdict::Kept);
    let view = world.ledger.namespace(&world.realm.namespace).unwrap();
    assert_eq!(view.record, named.id());
}

#[test]
fn recovery_outranks_a_stolen_root_at_any_version() {
    let world = World::with(with_recovery());
    let first = world.namespace.clone();
    let stolen_1 = later(&first, (1, 2), with_recovery(), &[ROOT]);
    let stolen_2 = later(&stolen_1, (2, 1), with_recovery(), &[ROOT]);
    let mut saved = with_recovery();
    saved.root.keys = vec![key(NEXT_ROOT).public()];
    let recovered = later(&first, (1, 2), saved, &[RECOVERY, NEXT_ROOT]);
    for order in [
        [&stolen_1, &stolen_2, &recovered],
        [&recovered, &stolen_1, &stolen_2],
        [&stolen_2, &recovered, &stolen_1],
    ] {
        let mut ledger = world.ledger.clone();
        for record in order {
            ledger.insert(record);
        }
        let view = ledger.namespace(&world.realm.namespace).unwrap();
        assert_eq!((view.record, view.frozen), (recovered.id(), None));
    }

    // The root cannot take the recovery key away, nor bring its own.
    let mut world = world;
    for recovery in [None, Some(key(STRANGER).public().fingerprint())] {
        let mut body = with_recovery();
        body.recovery = recovery;
        let record = later(&first, (1, 2), body, &[ROOT]);
        assert_eq!(world.insert(&record), Verdict::Refused(Refusal::Recovery));
    }
    // Nor does another key pass for it.
    let record = later(&first, (1, 2), with_recovery(), &[STRANGER, ROOT]);
    assert_eq!(world.insert(&record), Verdict::Refused(Refusal::Stranger));
}

#[test]
fn a_recovery_key_that_signs_twice_freezes_too() {
    let mut world = World::with(with_recovery());
    let recovered = |seed: u8| {
        let mut body = with_recovery();
        body.root.keys = vec![key(seed).public()];
        later(&world.namespace, (1, 2), body, &[RECOVERY, seed])
    };
    let (one, other) = (recovered(NEXT_ROOT), recovered(STRANGER));
    let mut proof = [one.id(), other.id()];
    proof.sort();
    assert_eq!(world.insert(&one), Verdict::Accepted);
    assert_eq!(world.insert(&other), Verdict::Frozen(proof));
    let view = world.ledger.namespace(&world.realm.namespace).unwrap();
    assert_eq!(
        (view.record, view.frozen),
        (world.namespace.id(), Some(proof))
    );
}

#[test]
fn a_recovery_key_set_on_a_late_branch_outranks_nothing() {
    // Without a recovery key the root was rotated; whoever holds the old one branches off before.
    let mut world = World::new();
    let mut rotated = namespace_body();
    rotated.root.keys = vec![key(NEXT_ROOT).public()];
    let honest = later(&world.namespace, (2, 1), rotated, &[ROOT, NEXT_ROOT]);
    assert_eq!(world.insert(&honest), Verdict::Accepted);
    let branch = later(&world.namespace, (1, 2), with_recovery(), &[ROOT]);
    assert_eq!(world.insert(&branch), Verdict::Kept);
    let recovered = later(&branch, (1, 3), with_recovery(), &[RECOVERY, ROOT]);
    assert_eq!(world.insert(&recovered), Verdict::Kept);
    let view = world.ledger.namespace(&world.realm.namespace).unwrap();
    assert_eq!((view.record, view.frozen), (honest.id(), None));
    // Reaching the honest version stops the namespace before both, and takes nothing over.
    let reached = later(&recovered, (2, 1), with_recovery(), &[RECOVERY, ROOT]);
    assert!(matches!(world.insert(&reached), Verdict::Frozen(_)));
    let view = world.ledger.namespace(&world.realm.namespace).unwrap();
    assert_eq!(view.record, world.namespace.id());
}

#[test]
fn what_waits_is_bounded() {
    let mut world = World::new();
    let other = Realm {
        home: STRANGER,
        namespace: [8; 32].into(),
        ..world.realm
    };
    let gap = world.realm.head(3, Some(&world.namespace), 0, &[]);
    assert_eq!(world.insert(&gap), Verdict::Waiting);
    let account = other.account(1, None, account_body(STRANGER), STRANGER);
    assert_eq!(world.insert(&account), Verdict::Waiting);
    assert_eq!(world.ledger.waits(&account), Some(true));
    let mut oldest = None;
    for nonce in 0..RECORDS_WAITING_MAX + 10 {
        // Signatures are verified elsewhere; an id apart is all that counts here.
        let mut realm = other;
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&nonce.to_le_bytes());
        realm.repository = bytes.into();
        let record = realm.change(1, STRANGER);
        assert_eq!(world.insert(&record), Verdict::Waiting);
        oldest.get_or_insert(record);
    }
    assert_eq!(world.ledger.waiting(), RECORDS_WAITING_MAX);
    assert_eq!(world.ledger.waits(&account), None, "it came before them");
    assert_eq!(
        world.insert(&oldest.unwrap()),
        Verdict::Waiting,
        "the oldest was forgotten"
    );
    assert_eq!(
        world.insert(&gap),
        Verdict::Known,
        "strangers push out strangers"
    );
}

#[test]
fn attestations_are_anybodys_and_those_with_the_lowest_ids_are_kept_whatever_the_order() {
    let realm = World::new().realm;
    let mut all: Vec<_> = (0..100)
        .map(|detail| realm.attestation(detail, STRANGER))
        .collect();
    let kept = |ledger: &Ledger| -> Vec<RecordId> {
        let attested = ledger.attestations(&realm.repository);
        attested.map(|(id, ..)| id).collect()
    };
    let mut lowest: Vec<RecordId> = all.iter().map(Record::id).collect();
    lowest.sort_unstable();
    lowest.truncate(cairn_protocol::limits::ATTESTATIONS_MAX);
    for _ in 0..2 {
        let mut world = World::new();
        let before = world.ledger.repository(&realm.repository).is_some();
        assert!(before, "the repository is known");
        for record in &all {
            let verdict = world.insert(record);
            assert!(
                matches!(
                    verdict,
                    Verdict::Accepted | Verdict::Refused(Refusal::Crowded)
                ),
                "{verdict:?}"
            );
        }
        assert_eq!(kept(&world.ledger), lowest);
        assert_eq!(world.ledger.waiting(), 0);
        all.reverse();
    }
    let mut early = Ledger::default();
    assert_eq!(early.insert(&all[0]), Verdict::Waiting);
    assert_eq!(early.waits(&all[0]), Some(true));
    assert_eq!(kept(&early), []);
}

#[test]
fn heads_are_named_from_the_newest_back_and_only_those_of_the_history() {
    let mut world = World::new();
    let realm = world.realm;
    let heads = realm.heads(3, None);
    for head in &heads {
        assert_eq!(world.insert(head), Verdict::Accepted);
        assert_eq!(world.ledger.waits(head), Some(false));
    }
    let ids = |ledger: &Ledger, max| -> Vec<RecordId> {
        let heads = ledger.heads(&realm.repository, max);
        heads.iter().map(|head| head.id).collect()
    };
    let newest_first: Vec<RecordId> = heads.iter().rev().map(Record::id).collect();
    assert_eq!(ids(&world.ledger, 10), newest_first);
    assert_eq!(ids(&world.ledger, 2), newest_first[..2]);
    let second = world.ledger.head(&realm.repository, &heads[1].id());
    assert_eq!(second.map(|head| head.seq), Some(2));
    let other = realm.head(3, Some(&heads[1]), 9, &[]);
    assert!(matches!(world.insert(&other), Verdict::Frozen(_)));
    assert_eq!(ids(&world.ledger, 10), newest_first[1..]);
    assert_eq!(world.ledger.head(&realm.repository, &heads[2].id()), None);
    assert_eq!(world.ledger.waits(&other), Some(false));
    let gap = realm.head(7, Some(&heads[2]), 0, &[]);
    world.insert(&gap);
    assert_eq!(world.ledger.head(&realm.repository, &gap.id()), None);
}
