// The library under Centrifugo as its documentation sets it up, for `cargo xtask bench compare`: what a client subscribes
// to is a channel, and an event that is posted goes to the channels of its type and its subject. It keeps nothing and
// asks nobody who they are.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/centrifugal/centrifuge"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("give the address to listen on, such as 127.0.0.1:4001")
	}
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: "bench"}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	http.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
	http.HandleFunc("POST /v1/events", func(answer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err == nil {
			err = publish(node, body)
		}
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		answer.WriteHeader(http.StatusCreated)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}

// publish sends one event, or a batch of them, to the channels of each.
func publish(node *centrifuge.Node, body []byte) error {
	events := []json.RawMessage{body}
	if body[0] == '[' {
		if err := json.Unmarshal(body, &events); err != nil {
			return err
		}
	}
	for _, event := range events {
		var topics struct{ Type, Subject string }
		if err := json.Unmarshal(event, &topics); err != nil {
			return err
		}
		for _, channel := range []string{topics.Type, topics.Subject} {
			if _, err := node.Publish(channel, event); err != nil {
				return err
			}
		}
	}
	return nil
}
