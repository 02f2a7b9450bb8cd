use super::*;

const PROLOGUE: &[u8] = b"what both know";

fn key(digit: &str) -> NetworkKey {
    digit.repeat(64).parse().unwrap()
}

/// A channel's two ends.
fn ends() -> (Channel, Channel) {
    let (dialling, opening) = Dialling::begin(&key("a"), PROLOGUE).unwrap();
    let (answer, dialled) = accept(&key("a"), PROLOGUE, &opening).unwrap();
    (dialling.finish(&answer).unwrap(), dialled)
}

fn sealed(channel: &mut Channel, plain: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    channel.sealer.seal_all(plain, &mut bytes).unwrap();
    bytes
}

fn opened(channel: &mut Channel, bytes: &[u8]) -> Option<Vec<u8>> {
    channel.opener.open(bytes).ok()
}

#[test]
fn what_one_end_says_the_other_hears_and_nobody_between() {
    let (mut ours, mut theirs) = ends();
    let plain = b"a look-up for 42";
    let bytes = sealed(&mut ours, plain);
    assert_eq!(bytes.len(), RECORD_PREFIX_BYTES + plain.len() + TAG_BYTES);
    assert!(!bytes.windows(4).any(|window| plain.windows(4).any(|part| part == window)));
    assert_eq!(opened(&mut theirs, &bytes).unwrap(), plain);
    let bytes = sealed(&mut theirs, b"found");
    assert_eq!(opened(&mut ours, &bytes).unwrap(), b"found");
}

#[test]
fn streams_of_any_length_survive_any_cut_and_little_is_kept() {
    let (mut ours, mut theirs) = ends();
    let plain: Vec<u8> = (0..300_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let bytes = sealed(&mut ours, &plain);
    let records = plain.len().div_ceil(RECORD_BYTES_MAX - TAG_BYTES);
    assert_eq!(bytes.len(), plain.len() + records * (RECORD_PREFIX_BYTES + TAG_BYTES));
    let (mut rest, mut heard, mut cut) = (&bytes[..], Vec::new(), 0);
    while !rest.is_empty() {
        cut = (cut * 7 + 1) % 100_003;
        let (chunk, left) = rest.split_at(cut.min(rest.len()));
        heard.extend(theirs.opener.open(chunk).unwrap());
        assert!(theirs.opener.kept_bytes() < RECORD_PREFIX_BYTES + RECORD_BYTES_MAX);
        rest = left;
    }
    assert_eq!(theirs.opener.kept_bytes(), 0);
    assert!(heard == plain);
    let mut one_by_one = Vec::new();
    for byte in sealed(&mut ours, b"byte by byte") {
        one_by_one.extend(theirs.opener.open(&[byte]).unwrap());
    }
    assert_eq!(one_by_one, b"byte by byte");
}

#[test]
fn every_bit_of_a_record_counts() {
    let plain = b"seventeen bytes..";
    for bit in 0..8 * (RECORD_PREFIX_BYTES + plain.len() + TAG_BYTES) {
        let (mut ours, mut theirs) = ends();
        let mut bytes = sealed(&mut ours, plain);
        bytes[bit / 8] ^= 1 << (bit % 8);
        // Where the length was changed upwards, the record ends with what comes next.
        bytes.extend(sealed(&mut ours, &[0; RECORD_BYTES_MAX - TAG_BYTES]));
        assert_eq!(opened(&mut theirs, &bytes), None, "bit {bit}");
    }
}

#[test]
fn records_that_are_repeated_left_out_swapped_or_sent_back_are_refused() {
    let three = |channel: &mut Channel| [b"one", b"two", b"six"].map(|plain| sealed(channel, plain));
    for order in [&[0, 0][..], &[1], &[1, 0], &[0, 2]] {
        let (mut ours, mut theirs) = ends();
        let records = three(&mut ours);
        let bytes: Vec<u8> = order.iter().flat_map(|place| records[*place].clone()).collect();
        assert_eq!(opened(&mut theirs, &bytes), None, "{order:?}");
    }
    let (mut ours, _) = ends();
    let bytes = sealed(&mut ours, b"one");
    assert_eq!(opened(&mut ours, &bytes), None, "sent back");
    let (_, mut theirs) = ends();
    assert_eq!(opened(&mut theirs, &bytes), None, "on another link");
}

#[test]
fn records_without_content_are_refused_by_their_length() {
    for length in 0..=TAG_BYTES as u16 {
        let (_, mut theirs) = ends();
        assert_eq!(opened(&mut theirs, &length.to_le_bytes()), None, "{length}");
    }
}

#[test]
fn openings_with_another_key_or_prologue_or_bit_are_refused() {
    let (_, opening) = Dialling::begin(&key("a"), PROLOGUE).unwrap();
    assert!(accept(&key("a"), PROLOGUE, &opening).is_ok());
    assert!(matches!(accept(&key("b"), PROLOGUE, &opening), Err(ChannelError::Altered)));
    assert!(matches!(accept(&key("a"), b"other", &opening), Err(ChannelError::Altered)));
    let changed = |place: usize| {
        let mut opening = opening;
        opening.ephemeral[place] ^= 1;
        opening
    };
    assert!((0..EPHEMERAL_BYTES).all(|place| accept(&key("a"), PROLOGUE, &changed(place)).is_err()));
    assert!(accept(&key("a"), PROLOGUE, &Opening { tag: [0; TAG_BYTES], ..opening }).is_err());
}

#[test]
fn an_answer_to_another_opening_is_refused() {
    let (dialling, _) = Dialling::begin(&key("a"), PROLOGUE).unwrap();
    let (_, other) = Dialling::begin(&key("a"), PROLOGUE).unwrap();
    let (answer, _) = accept(&key("a"), PROLOGUE, &other).unwrap();
    assert!(matches!(dialling.finish(&answer), Err(ChannelError::Altered)));
}

#[test]
fn an_opening_that_is_replayed_opens_another_channel_that_its_first_sender_alone_could_use() {
    let (dialling, opening) = Dialling::begin(&key("a"), PROLOGUE).unwrap();
    let (answer, mut first) = accept(&key("a"), PROLOGUE, &opening).unwrap();
    let (_, mut second) = accept(&key("a"), PROLOGUE, &opening).unwrap();
    let bytes = sealed(&mut dialling.finish(&answer).unwrap(), b"recorded");
    assert_eq!(opened(&mut first, &bytes).unwrap(), b"recorded");
    assert_eq!(opened(&mut second, &bytes), None);
}

#[test]
fn each_way_changes_its_key_in_time_and_the_other_end_follows() {
    let (mut ours, mut theirs) = ends();
    let many = 2 * RECORDS_PER_KEY + 3;
    for number in 0..many {
        let plain = number.to_le_bytes();
        let bytes = sealed(&mut ours, &plain);
        assert_eq!(opened(&mut theirs, &bytes).unwrap(), plain);
    }
    assert_eq!(ours.sealer.0.lock().sending_nonce(), many);
    let bytes = sealed(&mut theirs, b"the other way's numbers are its own");
    assert!(opened(&mut ours, &bytes).is_some());
    // Both ends change it at the same record: one that did not would not be understood.
    ours.sealer.0.lock().rekey_outgoing();
    let bytes = sealed(&mut ours, b"too early");
    assert_eq!(opened(&mut theirs, &bytes), None);
}
