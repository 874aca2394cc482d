package pipe

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
)

// dump writes messages to files: NUMBER.payload with the exact bytes, and NUMBER.json with the rest. Names are numbers,
// as a peer chooses the UUID.
type dump struct {
	dir    string
	number int
	stamp  bool
}

const payloadExt = ".payload"

// newDump makes the directory, and goes on behind the files that are there.
func newDump(dir string, stamp bool) (*dump, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("--dump: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("--dump: %w", err)
	}
	d := &dump{dir: dir, stamp: stamp}
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), payloadExt)); err == nil {
			d.number = max(d.number, n)
		}
	}
	return d, nil
}

func (d *dump) print(m *message.Message) error {
	d.number++
	name := filepath.Join(d.dir, fmt.Sprintf("%08d", d.number))
	about := asJSON(m, d.stamp)
	about.Payload, about.PayloadBase64 = nil, nil
	text, err := json.Marshal(about)
	if err != nil {
		return err
	}
	return errors.Join(create(name+payloadExt, m.Payload), create(name+".json", append(text, '\n')))
}

// create writes a file that is not there yet.
func create(name string, content []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func (*dump) flush() error { return nil }
