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
	{"no gap is announced", "publisher.py", "(wire.GAP if s.cursor != s.at else 0)", "0"},
	{"credit in messages does not count", "publisher.py", "s.used + len(batch) >= s.limit or ", ""},
	{"credit in bytes does not count", "publisher.py", "s.used_bytes + size > s.limit_bytes or ", ""},
	{"a claim is believed", "publisher.py", "elif max(f.next - 1, *f.settled, 0) > most:", "elif False:"},
	{"a Reject is not confirmed", "publisher.py", "            conn.send(\"RejectSeen\", s.number, sequence=f.sequence)\n", ""},
	{"Opened settles nothing", "publisher.py", "s.progress(f.next, f.settled, most)", "s.progress(f.next, [], most)"},
	{"it publishes behind a Goaway", "publisher.py", "            self._draining = True\n", "            pass\n"},
	{"max_message is not obeyed", "publisher.py", "if e and len(e.data) <= self._max_message and", "if e and"},
	{"Want is never void", "listener.py", "elif f.seen_messages == s.granted and not s.revoked:", "elif not s.revoked:"},
	{"holes are taken", "listener.py", "if f.first > s.next and not f.flags & wire.GAP:", "if False:"},
	{"Rejects are not repeated", "listener.py", "for reject in s.rejects.values():", "for reject in list[dict[str, Any]]():"},
	{"an older epoch comes back", "listener.py", " or f.epoch < p.epoch or s and", " or s and"},
	{"any secret will do", "listener.py", "compare_digest(self.secret, f.secret) and ", ""},
	{"a Release forgets nothing", "listener.py", "                self._forget(s)\n", "                pass\n"},
	{"what is settled is forgotten", "listener.py", "s.next, s.tenure = max(s.next, s.base),", "s.next, s.tenure = s.base,"},
	{"what is settled comes again where a stream comes back", "listener.py", "self.next = min(self.holes, default=self.high)", "self.next = self.high = self.base"},
	{"what is settled is taken again", "listener.py", "if not s.holes.issuperset(range(max(f.first, s.next), min(last + 1, s.high))):", "if False:"},
	{"credit is told again", "listener.py", "if self.granted > self.told and not self.revoked:", "if not self.revoked:"},
	{"any other tenure begins anew", "listener.py", "f.tenure > s.tenure > 0:", "f.tenure and s.tenure and f.tenure != s.tenure:"},
	{"checksums do not count", "wire.py", "raise Fault(\"wrong checksum\", 0)", "pass"},
	{"what stands beside a body is skipped", "wire.py", "if len(bodies) != 1 or", "if"},
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
