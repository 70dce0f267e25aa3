package main

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"time"

	"github.com/chromedp/chromedp"
)

// paints is how often the overview is loaded; the median counts.
const paints = 5

// errNoBrowser says that there is no Chromium on this machine.
var errNoBrowser = errors.New("chromium is not installed")

// firstPaint loads the overview in Chromium, signed in as who may see everything, and gives the time from the beginning of the navigation to
// the first content on the screen (w3.org/TR/paint-timing).
func (w *world) firstPaint(ctx context.Context) (time.Duration, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return 0, errNoBrowser
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(w.api+"/login"), chromedp.SendKeys(chromedp.CSS("input[name=token]"), w.tokens[everybody]+"\r"), chromedp.WaitVisible(chromedp.CSS("nav"))); err != nil {
		return 0, err
	}
	var all []time.Duration
	for range paints {
		if err := chromedp.Do(ctx, chromedp.Navigate(w.api+"/"), chromedp.WaitVisible(chromedp.CSS("nav"))); err != nil {
			return 0, err
		}
		ms, err := chromedp.Run(ctx, chromedp.Evaluate[float64](`new Promise(done => {
			const look = () => { const p = performance.getEntriesByName('first-contentful-paint')[0]; p ? done(p.startTime) : setTimeout(look, 10) };
			look();
		})`, chromedp.EvalAwaitPromise))
		if err != nil {
			return 0, err
		}
		all = append(all, time.Duration(ms*float64(time.Millisecond)))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}
