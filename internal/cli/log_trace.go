package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/wire"
)

func newTrace(s streams) *cobra.Command {
	a := &api{s: s}
	var trust, bundle string
	c := a.verb(cobra.Command{
		Use: "trace DEVICE --trust FILE", Short: "A device's chain of custody, factory to now, each line with its proof",
		Long: `Prints a device's whole chain of custody, oldest first: the order and the station it was made at, certificates, changes of state, the releases,
rollouts and commands that reached it with who approved them, verdicts, what its own log says, findings, remedies, and its end.
Each line says what caused it. Every proof and every signature is checked here, with the keys of --trust; the server is not believed.

PROOF ✓ 2 means: in its log, under a checkpoint that 2 witnesses cosigned. "+sig": the fact holds a signature or a link besides, and that was
checked too; --json says which. What does not hold is said in words at the end, and the exit code is 1.

--bundle writes what was checked into one file, which ` + "`hallmark log verify --bundle`" + ` checks again without the server.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark log trace 00112233445566778899aabbccddeeff --trust trust.json --bundle device.hallmark",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		believed, err := readTrust(trust)
		if err != nil {
			return err
		}
		data, err := settled(ctx, cl, args[0])
		if err != nil {
			return err
		}
		if bundle != "" {
			if err := durable.WriteFile(bundle, data, 0o644); err != nil {
				return err
			}
		}
		return a.traced(data, believed, args[0])
	})
	a.flags(c)
	c.Flags().StringVar(&trust, "trust", "", "file with origins, log keys and witness keys, kept from a source you trust")
	c.Flags().StringVar(&bundle, "bundle", "", "file to write the chain of custody to, with its proofs")
	return need(c, "trust")
}

// maxSettle is how often a chain of custody is asked for again because its newest facts are not witnessed yet: some five seconds.
const maxSettle = 20

// settled asks for a chain of custody until its newest facts are in it. After a while it takes what there is: the report says what it lacks.
func settled(ctx context.Context, cl *client.Client, device string) ([]byte, error) {
	for tries := 0; ; tries++ {
		data, err := retried(ctx, func() ([]byte, error) { return cl.Custody(ctx, device) }, "custody.not-witnessed")
		if err != nil {
			return nil, err
		}
		if c, err := wire.DecodeCustody(data); err != nil || c.Pending == 0 || tries == maxSettle {
			return data, nil //nolint:nilerr // what it is is said where it is verified
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// traced checks a chain of custody and prints it. An empty device is whatever it is of.
func (a *api) traced(data []byte, trust audit.Trust, device string) error {
	c, err := wire.DecodeCustody(data)
	if err != nil {
		return fmt.Errorf("no chain of custody: %w", err)
	}
	if device != "" && c.Device != device {
		return fmt.Errorf("the server gave the chain of custody of device %s, not of %s", oneLine(c.Device), device)
	}
	r, err := custody.Verify(c, trust)
	if err != nil {
		return fmt.Errorf("the chain of custody does NOT verify: %w", err)
	}
	if a.last, err = json.Marshal(r); err != nil {
		return err
	}
	if err := a.show(func(w io.Writer) error { return printCustody(w, r, len(data)) }); err != nil {
		return err
	}
	if n := len(r.Problems); n > 0 {
		return fmt.Errorf("the chain of custody does NOT hold: %s", fleet.Count(n, "problem", "problems"))
	}
	return nil
}

func printCustody(w io.Writer, r custody.Report, size int) error {
	fmt.Fprintf(w, "device %s of %s: %s in %d bytes\n", oneLine(r.Device), or(oneLine(r.Product)), fleet.Count(len(r.Lines), "fact", "facts"), size)
	witnesses := map[ledger.Log]int{}
	for _, h := range r.Logs {
		witnesses[h.Log] = len(h.Cosigned)
		names := make([]string, len(h.Cosigned))
		for i, c := range h.Cosigned {
			names[i] = c.Witness
		}
		fmt.Fprintf(w, "%s: all under the checkpoint of size %d, which a quorum had seen at %s; cosigned by %s\n", h.Log, h.Size, when(h.Seen), oneLine(strings.Join(names, ", ")))
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, l := range r.Lines {
		rows = append(rows, []string{
			when(l.At), fmt.Sprintf("%s/%d", l.Log, l.Index), proofOf(l, witnesses[l.Log]), string(l.Kind), by(l.Actor, r.Device), causedBy(l.Cause, l.RestsOn...),
			fleet.Describe(l.Fact, nil),
		})
		for _, e := range l.Events {
			rows = append(rows, []string{when(e.At), fmt.Sprintf(" log %d", e.Seq), "\"", e.Kind, "the device", causedBy(e.Cause), e.Text})
		}
	}
	if err := table(w, "TIME PLACE PROOF WHAT BY BECAUSE-OF TEXT", rows); err != nil {
		return err
	}
	said := func(head string, list []string) {
		if len(list) > 0 {
			fmt.Fprintf(w, "\n%s\n", head)
		}
		for _, s := range list {
			fmt.Fprintf(w, "  - %s\n", oneLine(s))
		}
	}
	said("Does NOT hold:", r.Problems)
	said("Could not be checked with this alone:", r.Unchecked)
	if len(r.Problems) == 0 {
		fmt.Fprintln(w, "\nEvery proof, signature and link that could be checked holds.")
	}
	return nil
}

func proofOf(l *custody.Line, witnesses int) string {
	switch {
	case l.Problem != "":
		return "✗ see below"
	case l.Checked != "":
		return fmt.Sprintf("✓ %d +sig", witnesses)
	}
	return fmt.Sprintf("✓ %d", witnesses)
}

func by(actor, device string) string {
	if actor == "device:"+device {
		return "the device"
	}
	return actor
}

// causedBy names the cause, and else what it rests on.
func causedBy(cause *ledger.Ref, others ...ledger.Ref) string {
	if cause != nil {
		others = []ledger.Ref{*cause}
	}
	names := make([]string, len(others))
	for i, ref := range others {
		names[i] = fmt.Sprintf("%s/%d", ref.Log, ref.Index)
	}
	return or(strings.Join(names, " "))
}

// verifyBundle checks a file that `log trace --bundle` wrote, and asks nobody.
func verifyBundle(s streams, file, trust string, asJSON bool) error {
	if trust == "" {
		return usagef("with --bundle, --trust FILE must name the keys to believe; a bundle's own would prove nothing")
	}
	believed, err := readTrust(trust)
	if err != nil {
		return err
	}
	data, err := readFile(file, wire.MaxCustody)
	if err != nil {
		return fmt.Errorf("--bundle: %w", err)
	}
	a := &api{s: s}
	if asJSON {
		a.output = output("json")
	}
	return a.traced(data, believed, "")
}
