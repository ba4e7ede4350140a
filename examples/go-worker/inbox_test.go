// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"testing"
	"time"

	"holdfast-worker/holdfastv1"
)

func TestAFinishedIdIsARepetitionForTenMinutes(t *testing.T) {
	inbox, begun := NewInbox(), time.Unix(0, 0)
	expect(t, inbox, of(1, 0, 1), "a:1", true, New)
	inbox.Finish("a:1", begun)
	expect(t, inbox, of(1, 0, 1), "a:1", true, Repeated)
	inbox.Finish("a:2", begun.Add(remember))
	expect(t, inbox, of(1, 0, 1), "a:1", false, Repeated)
	inbox.Finish("a:3", begun.Add(remember+time.Millisecond))
	expect(t, inbox, of(1, 0, 1), "a:1", false, New)
}

func TestALowerGenerationIsOutdatedUnlessRedeliveredOrOfAnotherShard(t *testing.T) {
	inbox := NewInbox()
	expect(t, inbox, of(5, 0, 1), "a:1", false, New)
	expect(t, inbox, of(4, 0, 1), "a:2", false, Outdated)
	expect(t, inbox, of(4, 0, 1), "a:2", true, New)
	expect(t, inbox, of(4, 1, 1), "b:1", false, New)
	expect(t, inbox, of(4, 0, 2), "c:1", false, New)
}

func of(generation uint64, number, count uint32) Message {
	return &holdfastv1.Event{Shard: number, ShardCount: count, Generation: generation}
}

func expect(t *testing.T, inbox *Inbox, message Message, id string, redelivered bool, verdict Verdict) {
	t.Helper()
	if got := inbox.Judge(message, id, redelivered); got != verdict {
		t.Errorf("%s: %d instead of %d", id, got, verdict)
	}
}
