// SPDX-License-Identifier: AGPL-3.0-only

// Prints every message that the bot sees. Replace handle by what your bot does.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	"google.golang.org/protobuf/proto"

	"holdfast-worker/holdfastv1"
)

func handle(message proto.Message) error {
	switch message := message.(type) {
	case *holdfastv1.Gap:
		// Whoever keeps state of the shard's guilds reads it anew here.
		fmt.Printf("shard %d: events may be missing between %d and %d\n", message.Shard, message.From, message.To)
	case *holdfastv1.Event:
		// The same JSON that Discord's gateway sends as `d`.
		var data struct {
			Author  struct{ Username string }
			Content string
		}
		if err := json.Unmarshal(message.Data, &data); err != nil {
			return err
		}
		fmt.Printf("shard %d  guild %d  %s: %.80s\n", message.Shard, message.GuildId, data.Author.Username, data.Content)
	}
	return nil
}

func main() {
	url := setting("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
	queue := setting("QUEUE", "holdfast.messages")
	log.Fatal(Consume(url, queue, handle, NewInbox()))
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
