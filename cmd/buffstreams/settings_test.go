package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// runWith runs the command with further variables, and returns what it printed.
func runWith(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the code says it
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func profile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "profile.json")
	require.NoError(t, os.WriteFile(path, []byte(content), mode))
	return path
}

func TestSettings_CommandLineThenEnvironmentThenProfile(t *testing.T) {
	t.Parallel()
	path := profile(t, `{"size": 11, "count": 3, "warmup": "0s", "json": true, "group": "of-sub"}`, 0o644)
	env := []string{"BUFFSTREAMS_PROFILE=" + path, "BUFFSTREAMS_SIZE=22", "BUFFSTREAMS_BATCH=2"}
	for want, args := range map[string][]string{`"size":22`: nil, `"size":33`: {"--size", "33"}} {
		stdout, stderr, code := runWith(t, env, append([]string{"bench", "both"}, args...)...)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, want)
		require.Contains(t, stdout, `"batch":2`)
		require.EqualValues(t, 3, parseBench(t, stdout).Publish.Messages)
	}
	stdout, _, code := runWith(t, nil, "bench", "both", "--profile", path)
	require.Zero(t, code)
	require.Contains(t, stdout, `"size":11`)
}

func TestSettings_ProfileByName(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, "buffstreams"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, "buffstreams", "work.json"), []byte(`{"json": true}`), 0o600))
	env := []string{"XDG_CONFIG_HOME=" + home, "BUFFSTREAMS_PROFILE=work"}
	stdout, stderr, code := runWith(t, env, "version")
	require.Zero(t, code, stderr)
	require.True(t, strings.HasPrefix(stdout, "{"), stdout)
}

func TestSettings_Errors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		env   string
		parts []string
	}{
		"no profile":       {"BUFFSTREAMS_PROFILE=/no/such.json", []string{"/no/such.json"}},
		"no JSON":          {"BUFFSTREAMS_PROFILE=" + profile(t, "x", 0o600), []string{"JSON object"}},
		"unknown flag":     {"BUFFSTREAMS_PROFILE=" + profile(t, `{"jsn": true}`, 0o600), []string{"jsn"}},
		"an object":        {"BUFFSTREAMS_PROFILE=" + profile(t, `{"json": {}}`, 0o600), []string{"json"}},
		"a list":           {"BUFFSTREAMS_PROFILE=" + profile(t, `{"json": ["true", "true"]}`, 0o600), []string{"no list"}},
		"bad value":        {"BUFFSTREAMS_JSON=perhaps", []string{"BUFFSTREAMS_JSON", "perhaps"}},
		"readable secret":  {"BUFFSTREAMS_PROFILE=" + profile(t, `{"token": "hush"}`, 0o644), []string{"chmod 600"}},
		"secret in a list": {"BUFFSTREAMS_PROFILE=" + profile(t, `{"token": [1]}`, 0o600), []string{"token"}},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := runWith(t, []string{test.env}, "version")
			require.Equal(t, 1, code)
			require.Empty(t, stdout)
			requireOneLine(t, stderr, test.parts...)
			require.NotContains(t, stderr, "hush")
		})
	}
}

// The listener demands what the publisher shows: from a file, the environment or a profile, and over TLS only.
func TestSettings_TokenAndTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := certificate(t, dir, 24*time.Hour)
	token := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("hush\n"), 0o600))
	_, at := startSub(t, nil, "tls://"+anyPort+"/t", "--tls-cert", cert, "--tls-key", key, "--token-file", token)
	topic := "tls://" + at + "/t"
	pub := []string{"pub", topic, "text", "--tls-ca", cert, "--timeout", "30s"}
	for name, env := range map[string]string{
		"environment": "BUFFSTREAMS_TOKEN=hush",
		"profile":     "BUFFSTREAMS_PROFILE=" + profile(t, `{"token": "hush"}`, 0o600),
		"file":        "BUFFSTREAMS_TOKEN_FILE=" + token,
	} {
		_, stderr, code := runWith(t, []string{env}, pub...)
		require.Zero(t, code, name+stderr)
	}
	for _, env := range []string{"X=", "BUFFSTREAMS_TOKEN=other"} {
		for _, args := range [][]string{
			pub, {"request", topic, "text", "--tls-ca", cert}, {"latency", topic, "--tls-ca", cert, "--duration", "1m"},
			{"bench", "pub", topic, "--tls-ca", cert, "--count", "1"},
		} {
			_, stderr, code := runWith(t, []string{env}, args...)
			require.Equal(t, 1, code, args)
			requireOneLine(t, stderr, "--token-file", "the token or certificate was refused")
			require.NotContains(t, stderr, "other")
			require.NotContains(t, stderr, "AckedConfig", "a user of the command knows its flags")
			if args[0] == "pub" {
				require.Contains(t, stderr, "(nothing was sent)")
			}
		}
	}
	stdout, _, code := runWith(t, []string{"BUFFSTREAMS_TOKEN=other"}, "check", "publish", topic, "--tls-ca", cert)
	require.Equal(t, 2, code)
	require.Contains(t, stdout, "--token-file")
	box := filepath.Join(t.TempDir(), "outbox")
	_, stderr, code := runWith(t, []string{"BUFFSTREAMS_TOKEN=other"}, append(pub, "--outbox", box, "--timeout", "2s")...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--token-file")
	require.NotContains(t, stderr, "AckedConfig")
	_, stderr, code = runCommand(t, "", "pub", topic, "text")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "unknown authority; --tls-ca", "(nothing was sent)")
	_, stderr, code = runCommand(t, "", "pub", strings.TrimPrefix(topic, "tls://"), "text", "--timeout", "3s")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "does only one side use TLS?", "(nothing was sent)")
	stdout, _, code = runWith(t, []string{"BUFFSTREAMS_TOKEN=wrong"}, "check", "connect", topic, "--tls-ca", cert)
	require.Equal(t, 2, code)
	require.Contains(t, stdout, "UNAUTHENTICATED")

	_, plain := startSub(t, nil, anyPort+"/t")
	_, stderr, code = runWith(t, []string{"BUFFSTREAMS_TOKEN=hush"}, "pub", plain+"/t", "text", "--timeout", "1s")
	require.Equal(t, 1, code, "it would go over plaintext")
	requireOneLine(t, stderr, "refusing to send the token in plaintext", "--insecure")
	_, stderr, code = runCommand(t, "", "pub", "tls://"+plain+"/t", "text", "--tls-ca", cert, "--timeout", "3s")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "does only one side use TLS?", "(nothing was sent)")
	require.NotContains(t, stderr, "hush")
	_, stderr, code = runCommand(t, "", "pub", plain, "text", "--token", "hush")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "unknown flag")
}
