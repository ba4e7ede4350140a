// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"errors"
	"fmt"
	"log"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"google.golang.org/protobuf/proto"

	"holdfast-worker/holdfastv1"
)

// Messages on their way to us. They are handled one by one all the same.
const prefetch = 64

const pause = time.Second

// HandlerFailed says that an event could not be handled. Going on with the next one would break the order.
type HandlerFailed struct {
	ID  string
	Err error
}

func (failed *HandlerFailed) Error() string { return fmt.Sprintf("%s: %v", failed.ID, failed.Err) }
func (failed *HandlerFailed) Unwrap() error { return failed.Err }

// Consume calls handle for each Event and Gap, one after the other. It connects again whenever the connection ends, and
// ends itself only with HandlerFailed: everything that isn't acknowledged then comes again, to whoever consumes next.
// The rules are in docs/contract.md, "Consumers that need order".
func Consume(url, queue string, handle func(proto.Message) error, inbox *Inbox) error {
	for {
		err := session(url, queue, handle, inbox)
		var failed *HandlerFailed
		if errors.As(err, &failed) {
			return failed
		}
		log.Printf("the connection to RabbitMQ: %v", err)
		time.Sleep(pause)
	}
}

// One connection, from its beginning to its end, which is always an error.
func session(url, queue string, handle func(proto.Message) error, inbox *Inbox) error {
	connection, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	// It gives back, in order, what wasn't acknowledged.
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err := channel.Qos(prefetch, 0, false); err != nil {
		return err
	}
	// Holdfast declares the queue: here it only has to be there.
	deliveries, err := channel.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for delivery := range deliveries {
		if err := receive(delivery, handle, inbox); err != nil {
			return err
		}
	}
	return errors.New("ended")
}

// Finish it, remember it, acknowledge it, in this order.
func receive(delivery amqp.Delivery, handle func(proto.Message) error, inbox *Inbox) error {
	message, err := decode(delivery)
	if err != nil {
		return &HandlerFailed{delivery.MessageId, err}
	}
	if message != nil && inbox.Judge(message, delivery.MessageId, delivery.Redelivered) == New {
		if err := handle(message); err != nil {
			return &HandlerFailed{delivery.MessageId, err}
		}
		inbox.Finish(delivery.MessageId, time.Now())
	}
	return delivery.Ack(false)
}

// What a body is, is told by the AMQP property `type`. Others may be added: they are passed over.
func decode(delivery amqp.Delivery) (Message, error) {
	var message Message
	switch delivery.Type {
	case "holdfast.v1.Event":
		message = &holdfastv1.Event{}
	case "holdfast.v1.Gap":
		message = &holdfastv1.Gap{}
	default:
		return nil, nil
	}
	return message, proto.Unmarshal(delivery.Body, message)
}
