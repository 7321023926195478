//! Who reads which queue: every member computes the same answer from the same two sorted lists. Pure.

/// The share of the member `own` in sorted queues: contiguous blocks, sizes that differ by one at most. Nothing if it is
/// not among the sorted members.
pub(super) fn share<'a, Q>(queues: &'a [Q], members: &[String], own: &str) -> &'a [Q] {
    let Some(place) = members.iter().position(|member| member == own) else {
        return &[];
    };
    let (size, larger) = (queues.len() / members.len(), queues.len() % members.len());
    let start = place * size + place.min(larger);
    let end = start + size + usize::from(place < larger);
    &queues[start..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Catches a queue that nobody reads, one that two read, and an unfair share.
        #[test]
        fn each_queue_has_one_owner_and_shares_differ_by_one(queue_count in 0u32..100, member_count in 1usize..20) {
            let queues: Vec<u32> = (0..queue_count).collect();
            let members: Vec<String> = (0..member_count).map(|number| format!("member-{number:02}")).collect();
            let shares: Vec<&[u32]> = members.iter().map(|member| share(&queues, &members, member)).collect();
            prop_assert_eq!(&shares.concat(), &queues);
            let sizes = || shares.iter().map(|share| share.len());
            prop_assert!(sizes().max().unwrap_or(0) - sizes().min().unwrap_or(0) <= 1);
        }
    }

    /// Catches a consumer that reads although the servers do not count it as a member.
    #[test]
    fn a_stranger_gets_nothing() {
        assert_eq!(share(&[1, 2, 3], &["a".to_owned()], "b"), &[] as &[i32]);
        assert_eq!(share(&[1, 2, 3], &[], "b"), &[] as &[i32]);
    }
}
