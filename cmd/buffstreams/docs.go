package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/settings"
)

// docsHead begins docs/command.md.
const docsHead = "# The command `buffstreams`\n\n" +
	"`go install github.com/buffstreams/watermill-buffstreams/cmd/buffstreams@latest`, or `go run ./cmd/buffstreams` in a checkout.\n" +
	"This page is what `--help` says, and a test holds it to that: `go run ./cmd/buffstreams docs > docs/command.md` writes it anew.\n\n"

// newDocs prints docs/command.md.
func newDocs() *cobra.Command {
	return &cobra.Command{
		Use: "docs", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := os.Stdout.WriteString(docsHead + document(cmd.Root()))
			return err
		},
	}
}

// document is a command, and those below it, in Markdown.
func document(cmd *cobra.Command) string {
	var b strings.Builder
	if cmd.HasParent() {
		fmt.Fprintf(&b, "## %s\n\n", cmd.CommandPath())
	}
	parent := cmd.Parent()
	if long := cmd.Long; long != "" && (parent == nil || parent.Long != long) { // the modes of bench share one
		fmt.Fprintf(&b, "```text\n%s\n```\n\n", long)
	} else {
		fmt.Fprintf(&b, "%s.\n\n", cmd.Short)
	}
	if cmd.HasParent() && cmd.Runnable() && !cmd.HasSubCommands() {
		fmt.Fprintf(&b, "```sh\n%s\n```\n\n", strings.TrimSpace(cmd.UseLine()+"\n\n"+dedent(cmd.Example)))
	}
	rows := ""
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && !f.Hidden {
			rows += row(f)
		}
	})
	if rows != "" && !cmd.HasSubCommands() || !cmd.HasParent() {
		b.WriteString("| flag | variable | default | what |\n|---|---|---|---|\n" + rows + "\n")
	}
	for _, child := range cmd.Commands() {
		if !child.Hidden && child.Name() != "help" && child.Name() != "completion" {
			b.WriteString(document(child))
		}
	}
	if !cmd.HasParent() {
		return strings.TrimRight(b.String(), "\n") + "\n"
	}
	return b.String()
}

func row(f *pflag.Flag) string {
	name := "`--" + f.Name + "`"
	if f.Shorthand != "" {
		name = "`-" + f.Shorthand + "`, " + name
	}
	value := ""
	if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
		value = "`" + f.DefValue + "`"
	}
	return fmt.Sprintf("| %s | `%s` | %s | %s |\n", name, settings.Variable(f.Name), value, strings.ReplaceAll(f.Usage, "|", "\\|"))
}

func dedent(example string) string {
	return strings.ReplaceAll(strings.TrimPrefix(example, "  "), "\n  ", "\n")
}
