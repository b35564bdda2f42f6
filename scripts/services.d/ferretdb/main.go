// FerretDB, a server that speaks MongoDB's protocol and stores in PostgreSQL, as one program: a stand-in for MongoDB where
// there is none to install. For development and tests only.
//
//	ferretdb serve ADDRESS POSTGRESQL_URL [CERTIFICATE KEY]   until SIGTERM; with a certificate over TLS alone
//	ferretdb ready URL                                        exit code 0 when it has answered a ping and stored a document
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "serve":
		return serve(ferretdb.ListenerConfig{TCP: args[1]}, args[2])
	case len(args) == 5 && args[0] == "serve":
		return serve(ferretdb.ListenerConfig{TLS: args[1], TLSCertFile: args[3], TLSKeyFile: args[4]}, args[2])
	case len(args) == 2 && args[0] == "ready":
		return ready(args[1])
	}
	return fmt.Errorf("usage: ferretdb serve ADDRESS POSTGRESQL_URL [CERTIFICATE KEY] | ferretdb ready URL")
}

func serve(listener ferretdb.ListenerConfig, postgresqlURL string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:      listener,
		Handler:       "postgresql",
		PostgreSQLURL: postgresqlURL,
	})
	if err != nil {
		return err
	}
	return server.Run(ctx)
}

func ready(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	client, err := mongo.Connect(ctx, options.Client().ApplyURI(url))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(ctx) }()
	if err := client.Ping(ctx, nil); err != nil {
		return err
	}
	probe := client.Database("services").Collection("ready")
	_, err = probe.ReplaceOne(ctx, bson.M{"_id": "probe"}, bson.M{"at": time.Now()}, options.Replace().SetUpsert(true))
	return err
}
