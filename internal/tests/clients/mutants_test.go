package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mutants are mistakes that are easy to make in a client, each of which its own suite, with the vectors, must notice.
var mutants = []struct{ name, file, old, new string }{
	{"no gap is announced", "publisher.py", "(wire.GAP if first != s.at else 0)", "0"},
	{"credit in messages does not count", "publisher.py", "s.used_messages >= s.limit_messages or ", ""},
	{"credit in bytes does not count", "publisher.py", " or s.used_bytes + n > s.limit_bytes", ""},
	{"a claim is believed", "publisher.py", "if f.next > most + 1 or any(last > most for last in f.settled):", "if False:"},
	{"a Reject is not confirmed", "publisher.py", `        conn.send(Frame("RejectSeen", s.handle, sequence=f.sequence))` + "\n", ""},
	{"Opened settles nothing", "publisher.py", "        s.settle(f.settled, most)\n", ""},
	{"it publishes behind a Goaway", "publisher.py", "            self._draining = True\n", "            pass\n"},
	{"max_message is not obeyed", "publisher.py", "return len(entry.chunk) > conn.max_message", "return False and len(entry.chunk) > conn.max_message"},
	{"Want is never void", "listener.py", "if f.seen_messages == s.granted:", "if True:"},
	{"holes are taken", "listener.py", "if not f.flags & wire.GAP:", "if False:"},
	{"Rejects are not repeated", "listener.py", "for reject in [r for r in s.unsettled.values() if isinstance(r, Frame)]:", "for reject in list[Frame]():"},
	{"an older epoch comes back", "listener.py", " or f.epoch < p.epoch", ""},
	{"any secret will do", "listener.py", "not hmac.compare_digest(p.secret, f.secret) or ", ""},
	{"a Release forgets nothing", "listener.py", "                    self._forget(*opened[:2])\n", "                    pass\n"},
	{"what is settled is forgotten", "listener.py", "max(s.base, f.base), max(s.next, f.base), f.tenure", "max(s.base, f.base), f.base, f.tenure"},
	{"credit is told again", "listener.py", "if self.granted > self.told and not self.revoked:", "if not self.revoked:"},
	{"any other tenure begins anew", "listener.py", "f.tenure > s.tenure > 0:", "f.tenure and s.tenure and f.tenure != s.tenure:"},
	{"checksums do not count", "wire.py", "raise Fault(0, \"wrong checksum\")", "pass"},
	{"what stands beside a body is skipped", "wire.py", "if at + length != len(payload):", "if False:"},
}

func TestClients_Mutants(t *testing.T) {
	for _, m := range mutants {
		code, err := os.ReadFile(filepath.Join(clientsDir, "python", "src", "buffstreams", m.file))
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(code), m.old), "%s: in %s, the text to replace does not occur once:\n%s", m.name, m.file, m.old)
	}
	if os.Getenv("MUTANTS") != "1" {
		t.Skip("runs the Python client's tests for each mutant: MUTANTS=1")
	}
	python := pythonPeer(t)[0]
	vectors, err := filepath.Abs("../../../testdata/vectors")
	require.NoError(t, err)
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(clientsDir, "python"))))
			file := filepath.Join(dir, "src", "buffstreams", m.file)
			code, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(code), m.old, m.new, 1)), 0o600))
			cmd := exec.CommandContext(t.Context(), python, "-m", "unittest", "discover", "tests")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "VECTORS="+vectors, "PYTHONDONTWRITEBYTECODE=1")
			output, err := cmd.CombinedOutput()
			require.Error(t, err, "it survived")
			require.Contains(t, string(output), "FAILED (")
		})
	}
}
