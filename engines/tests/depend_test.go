package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/engines"
)

// libraries are the clients of the engines, and the outbox's storage.
var libraries = map[string][]string{
	"nats":     {"github.com/nats-io/nats.go"},
	"kafka":    {"github.com/twmb/franz-go"},
	"redis":    {"github.com/redis/go-redis/v9", "github.com/ThreeDotsLabs/watermill-redisstream"},
	"amqp":     {"github.com/rabbitmq/amqp091-go"},
	"postgres": {"github.com/jackc/pgx/v5"},
	"outboxes": {"go.etcd.io/bbolt", "github.com/hashicorp/raft-wal"},
}

const application = `package main

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/ENGINE"
)

func main() {
	if e, err := engines.Open(context.Background(), "gochannel:", ENGINE.Driver); err == nil {
		_ = e.Close()
	}
}
`

// TestDependencies_OneEngineBringsNothingOfTheOthers is E5, of the modules and of the binary.
func TestDependencies_OneEngineBringsNothingOfTheOthers(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	for engine := range libraries {
		if engine == "outboxes" {
			continue
		}
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			const module = "github.com/buffstreams/watermill-buffstreams"
			write := func(name, text string) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
			}
			write("main.go", strings.ReplaceAll(application, "ENGINE", engine))
			write("go.mod", "module app\n\ngo 1.25.0\n\nrequire (\n\t"+module+"/engines v0.0.0\n\t"+module+"/engines/"+engine+" v0.0.0\n)\n\nreplace (\n\t"+
				module+" => "+root+"\n\t"+module+"/engines => "+root+"/engines\n\t"+module+"/engines/"+engine+" => "+root+"/engines/"+engine+"\n)\n")
			var sums strings.Builder
			for _, of := range []string{"engines", "engines/" + engine} {
				text, err := os.ReadFile(filepath.Join(root, of, "go.sum"))
				require.NoError(t, err)
				sums.Write(text)
			}
			write("go.sum", sums.String())
			goCommand := func(args ...string) string {
				cmd := exec.CommandContext(t.Context(), "go", args...)
				cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s", out)
				return string(out)
			}
			goCommand("build", "-o", "app", ".")
			binary, modules := goCommand("version", "-m", "app"), goCommand("list", "-m", "all")
			for other, paths := range libraries {
				for _, path := range paths {
					if other == engine {
						assert.Contains(t, binary, path)
						continue
					}
					assert.NotContains(t, binary, path)
					assert.NotContains(t, modules, path+" ")
				}
			}
		})
	}
}

// TestOpen_GivesTheLibrarysOwnTypes is E4: with no wrapper there is nothing that could be slower.
func TestOpen_GivesTheLibrarysOwnTypes(t *testing.T) {
	e, err := engines.Open(t.Context(), "tcp://127.0.0.1:1?group=g")
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	assert.IsType(t, (*buffstreams.Publisher)(nil), e.Publisher())
	sub, err := e.Subscriber()
	require.NoError(t, err)
	assert.IsType(t, (*buffstreams.Subscriber)(nil), sub)
}
