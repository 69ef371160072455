//! Stretches that occur again, and which of them become functions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foldhash::HashMap;

use super::text::{FRAGMENTS, Form, Locals, Stretch, Text, Use, UseKind};
use super::{CALL, LOCAL};

/// Bytes of a `drop`.
const DROP: i64 = 1;

/// Bytes of a function without its code.
const FUNCTION: i64 = 7;

/// Bytes that a new function is to spare at least.
const LEAST: i64 = 4;

/// Parameters at most.
const PARAMS: usize = 12;

/// Stretches of the same form.
pub(super) type Group = Vec<Stretch>;

/// Finds stretches that occur more than once, if something could be spared.
pub(super) fn find_repeated(texts: &[Text]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // By text and fragment, whether the stretch of the last length that starts there occurs again.
    let mut repeated: Vec<Vec<bool>> = texts.iter().map(|text| vec![true; text.fragments.len() + 1]).collect();
    for count in 1..=FRAGMENTS {
        let mut keyed: Vec<(Form, Stretch)> = Vec::new();
        for (number, (text, repeated)) in texts.iter().zip(&repeated).enumerate() {
            for run in &text.runs {
                for first in run.fragments.start..(run.fragments.end + 1).saturating_sub(u32::from(count)) {
                    let both = repeated[first as usize] && (count == 1 || repeated[first as usize + 1]);
                    let stretch = Stretch { text: number as u32, first, count, result: None };
                    let is_searched = || text.fragments(&stretch).iter().any(|fragment| fragment.is_searched);
                    if let Some(form) = (both && is_searched()).then(|| text.form(&stretch)).flatten() {
                        keyed.push((form, stretch));
                    }
                }
            }
        }
        for (text, repeated) in texts.iter().zip(&mut repeated) {
            // What is not looked at by itself can be part of what is.
            let mut searched = usize::MAX;
            for (first, fragment) in text.fragments.iter().enumerate().rev() {
                searched = if fragment.is_searched { first } else { searched };
                repeated[first] = searched - first >= count as usize;
            }
        }
        keyed.sort_unstable();
        let mut is_over = true;
        for group in keyed.chunk_by(|a, b| a.0.form == b.0.form).filter(|group| group.len() > 1) {
            is_over = false;
            for (_, stretch) in group {
                repeated[stretch.text as usize][stretch.first as usize] = true;
            }
            add_groups(texts, group, &mut groups);
        }
        if is_over {
            break;
        }
    }
    groups
}

/// Adds stretches of the same form as a group, and such of them that have the same leaves: these need not be taken, or not
/// twice.
fn add_groups(texts: &[Text], stretches: &[(Form, Stretch)], groups: &mut Vec<Group>) {
    let may_be_called = |(_, stretch): &&(Form, Stretch)| texts[stretch.text as usize].may_be_called(stretch);
    let usable: Vec<(Form, Stretch)> = stretches.iter().filter(may_be_called).copied().collect();
    let mut add = |part: &[(Form, Stretch)], whole: usize| {
        if (2..whole).contains(&part.len()) {
            let part: Group = part.iter().map(|&(_, stretch)| stretch).collect();
            groups.extend(Some(part).filter(|part| spared_at_most(texts, part) >= LEAST));
        }
    };
    add(&usable, usize::MAX);
    for part in usable.chunk_by(|a, b| a.0.leaves == b.0.leaves) {
        add(part, usable.len());
        part.chunk_by(|a, b| a.0.constants == b.0.constants).for_each(|same| add(same, part.len()));
    }
}

/// Bytes that a function for a group spares if it has to take no leaves and to give nothing.
fn spared_at_most(texts: &[Text], group: &[Stretch]) -> i64 {
    let text = &texts[group[0].text as usize];
    let params = Locals::of(text, &group[0]).map_or(0, |locals| locals.params.count_ones());
    let each = |stretch: &Stretch| texts[stretch.text as usize].bytes(stretch) - CALL - LOCAL * i64::from(params);
    group.iter().map(each).sum::<i64>() - text.bytes(&group[0]) - FUNCTION
}

/// What a function for some of a group would be.
pub(super) struct Candidate {
    pub(super) stretches: Vec<Stretch>,
    /// The local that it gives, by its number in the stretch.
    pub(super) result: Option<u8>,
    /// For each use of a stretch, the first one that is always the same, if it is a leaf that is taken.
    pub(super) taken: Vec<Option<usize>>,
    pub(super) spared: i64,
}

impl Candidate {
    /// The leaves that are taken, each once, by the number of the first use.
    pub(super) fn passed(&self) -> Vec<usize> {
        distinct(&self.taken)
    }

    /// The best for what is left of a group.
    fn of(texts: &[Text], group: &[Stretch], taken: &[Vec<bool>]) -> Option<Candidate> {
        let mut free: Vec<Stretch> = Vec::new();
        for stretch in group {
            let rows = texts[stretch.text as usize].rows(stretch);
            let overlaps =
                |other: &Stretch| other.text == stretch.text && texts[other.text as usize].rows(other).end > rows.start;
            let is_taken = taken[stretch.text as usize][rows.clone()].iter().any(|&taken| taken);
            if !is_taken && !free.last().is_some_and(overlaps) {
                free.push(*stretch);
            }
        }
        let has_value = texts[free.first()?.text as usize].fragments(&free[0])[0].has_value;
        // The local that is read behind most of them, if one is.
        let mut counts = [0u32; u8::MAX as usize + 1];
        free.iter().filter(|_| !has_value).filter_map(|stretch| stretch.result).for_each(|n| counts[n as usize] += 1);
        let most = (0..=u8::MAX).max_by_key(|&number| (counts[number as usize], Reverse(number)));
        let results = [None, most.filter(|&number| counts[number as usize] > 0)];
        let with_result = |&result: &Option<u8>| {
            let is_possible = |stretch: &Stretch| stretch.result.is_none() || stretch.result == result;
            Candidate::with_result(texts, free.iter().copied().filter(is_possible).collect(), result)
        };
        let best = results.iter().filter_map(with_result);
        best.max_by_key(|candidate| (candidate.spared, Reverse(candidate.result)))
    }

    fn with_result(texts: &[Text], stretches: Vec<Stretch>, result: Option<u8>) -> Option<Candidate> {
        let first = stretches.first().filter(|_| stretches.len() > 1)?;
        let text = &texts[first.text as usize];
        let locals = Locals::of(text, first)?;
        let taken = compare_leaves(texts, &stretches, &locals);
        let passed = distinct(&taken);
        let params = locals.params.count_ones() as usize;
        if params + passed.len() > PARAMS {
            return None;
        }
        let mut spared = -text.bytes(first) - FUNCTION - result.map_or(0, |_| LOCAL);
        for stretch in &stretches {
            let text = &texts[stretch.text as usize];
            let uses = text.uses(stretch);
            let operands: i64 = passed.iter().map(|&number| i64::from(uses[number].bytes)).sum();
            let result = match result {
                None => 0,
                Some(_) if stretch.result.is_none() => DROP,
                Some(_) => LOCAL,
            };
            spared += text.bytes(stretch) - CALL - LOCAL * params as i64 - operands - result;
        }
        (spared >= LEAST).then_some(Candidate { stretches, result, taken, spared })
    }
}

/// For each use of stretches of the same form, the first one that is the same in each of them, if it is a leaf, and not the
/// same constant in all.
fn compare_leaves(texts: &[Text], stretches: &[Stretch], locals: &Locals) -> Vec<Option<usize>> {
    let uses: Vec<&[Use]> = stretches.iter().map(|stretch| texts[stretch.text as usize].uses(stretch)).collect();
    let leaf = |use_: &Use| (use_.kind, use_.what);
    // By the leaf in the first stretch.
    let mut first_of: HashMap<(UseKind, u64), Vec<usize>> = HashMap::default();
    let mut first = |number: usize| {
        let others = first_of.entry(leaf(&uses[0][number])).or_default();
        let same = others.iter().find(|&&other| uses.iter().all(|uses| leaf(&uses[other]) == leaf(&uses[number])));
        let same = same.copied();
        if same.is_none() {
            others.push(number);
        }
        same.unwrap_or(number)
    };
    let is_constant = |number: usize| {
        uses[0][number].is_constant() && uses.iter().all(|u| leaf(&u[number]) == leaf(&uses[0][number]))
    };
    let is_free = |number: usize| uses[0][number].kind != UseKind::Set && locals.number(&uses[0][number]).is_none();
    (0..uses[0].len()).map(|number| (is_free(number) && !is_constant(number)).then(|| first(number))).collect()
}

/// Chooses functions that spare most, one after the other.
pub(super) fn choose(texts: &[Text], mut groups: Vec<Group>) -> Vec<Candidate> {
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups.retain(|group| group.len() > 1);
    // Hashes, which they were grouped by, are not the same in each run of the tool.
    groups.sort_unstable();
    let mut taken: Vec<Vec<bool>> = texts.iter().map(|text| vec![false; text.rows]).collect();
    let mut open: BinaryHeap<(i64, Reverse<usize>)> = BinaryHeap::new();
    for (number, group) in groups.iter().enumerate() {
        open.extend(Candidate::of(texts, group, &taken).map(|candidate| (candidate.spared, Reverse(number))));
    }
    let mut chosen = Vec::new();
    while let Some((spared, Reverse(number))) = open.pop() {
        let Some(candidate) = Candidate::of(texts, &groups[number], &taken) else { continue };
        if candidate.spared < spared {
            open.push((candidate.spared, Reverse(number)));
            continue;
        }
        for stretch in &candidate.stretches {
            let text = &texts[stretch.text as usize];
            taken[stretch.text as usize][text.rows(stretch)].fill(true);
        }
        chosen.push(candidate);
    }
    chosen
}

fn distinct(taken: &[Option<usize>]) -> Vec<usize> {
    let mut distinct: Vec<usize> = taken.iter().flatten().copied().collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}
