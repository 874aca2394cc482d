package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// delegate lets a process of its own do the job, decodes what that writes into results, one each, and kills it: what it
// leaves is what a crash leaves.
func (j job) delegate(ctx context.Context, results ...any) error {
	arg, err := json.Marshal(j)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, ChildArg, string(arg))
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	stdin, err := cmd.StdinPipe() // held open: its end would end the child
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	decoder := json.NewDecoder(stdout)
	for i := 0; i < len(results) && err == nil; i++ {
		err = decoder.Decode(results[i])
	}
	killed := cmd.Process.Kill()
	waited := cmd.Wait() // its status says that it was killed, which it was
	_ = stdin.Close()
	if err != nil {
		return fmt.Errorf("process that had to %s: %w: %s", j.Task, errors.Join(err, waited), strings.TrimSpace(complaints.String()))
	}
	return killed
}
