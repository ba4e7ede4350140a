// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"time"

	"google.golang.org/protobuf/proto"
)

// Longer than Discord holds a session: nothing is repeated after that.
const remember = 10 * time.Minute

// Verdict is what to do with a delivery.
type Verdict int

const (
	// New is to be handled.
	New Verdict = iota
	// Repeated has been finished: acknowledge it.
	Repeated
	// Outdated is from a former owner of the shard that woke too late: acknowledge it.
	Outdated
)

// Message is an Event or a Gap.
type Message interface {
	proto.Message
	GetShard() uint32
	GetShardCount() uint32
	GetGeneration() uint64
}

type shard struct{ number, count uint32 }

type finished struct {
	id string
	at time.Time
}

// Inbox remembers what a consumer has to, to handle each event once and in order. It lives as long as the process: if
// doing a thing twice does harm, keep the ids where they outlive it.
type Inbox struct {
	generations map[shard]uint64
	known       map[string]bool
	// In the order of their times: the oldest are the first.
	order []finished
}

// NewInbox remembers nothing yet.
func NewInbox() *Inbox {
	return &Inbox{generations: map[shard]uint64{}, known: map[string]bool{}}
}

// Judge says what to do with a message that arrived under this id.
func (inbox *Inbox) Judge(message Message, id string, redelivered bool) Verdict {
	from := shard{message.GetShard(), message.GetShardCount()}
	generation, highest := message.GetGeneration(), inbox.generations[from]
	if generation > highest {
		inbox.generations[from] = generation
	}
	switch {
	// A redelivered message may be older than the new owner, and not have been handled yet.
	case generation < highest && !redelivered:
		return Outdated
	case inbox.known[id]:
		return Repeated
	default:
		return New
	}
}

// Finish is to be called when the message has been handled, before it is acknowledged.
func (inbox *Inbox) Finish(id string, now time.Time) {
	inbox.known[id] = true
	inbox.order = append(inbox.order, finished{id, now})
	for now.Sub(inbox.order[0].at) > remember {
		delete(inbox.known, inbox.order[0].id)
		inbox.order = inbox.order[1:]
	}
}
