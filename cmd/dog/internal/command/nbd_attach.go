package command

import (
	"context"
	"fmt"
	"strings"

	"sheepdog/nbd/attach"
)

// nbdAttach attaches an export, prints the device, and leaves a monitor behind.
func nbdAttach(ctx context.Context, s *session) error {
	cfg, err := s.nbdConfig()
	if err != nil {
		return err
	}
	if s.opts.nbd.foreground && s.opts.nbd.noMonitor {
		return badUsage("Please give either --foreground or --no-monitor")
	}
	host := s.app.env.Host
	if !s.opts.force {
		if err := notTwice(host, cfg); err != nil {
			return err
		}
	}
	d, err := host.Attach(ctx, cfg)
	if err != nil {
		return nbdFailed(err)
	}
	s.print("%s\n", d.Path)
	switch {
	case s.opts.nbd.foreground:
		return s.attachForeground(ctx, d)
	case s.opts.nbd.noMonitor:
		return nil
	}
	if err := s.leaveMonitor(ctx, d); err != nil {
		s.warn("%s is attached, but nothing will replace its connections when they die: %v", d.Path, err)
		return quiet(ExitSystem)
	}
	return nil
}

// nbdConfig returns what is to be attached.
func (s *session) nbdConfig() (attach.Config, error) {
	addrs, err := s.nbdServers()
	if err != nil {
		return attach.Config{}, err
	}
	o := s.opts.nbd
	cfg := attach.Config{
		Addrs: addrs, Export: s.name(), Connections: o.connections, Timeout: o.timeout, DeadTime: o.deadTime,
		BlockSize: o.blockSize, ReadOnly: o.readOnly,
	}
	if _, ok := attach.ParseDevice(s.name()); ok && strings.HasPrefix(s.name(), "/") || s.name() == "" {
		return attach.Config{}, badUsage("Please name the export first, then the device")
	}
	if len(s.args) > 1 {
		if cfg.Index, cfg.HasIndex = attach.ParseDevice(s.args[1]); !cfg.HasIndex {
			return attach.Config{}, badUsage("Invalid device '%s': it must be /dev/nbdN", s.args[1])
		}
	}
	return cfg, nil
}

// notTwice refuses to attach what is attached already: a file system that is
// mounted from two devices destroys itself.
func notTwice(host attach.Host, cfg attach.Config) error {
	devices, err := host.List()
	if err != nil {
		return nbdFailed(err)
	}
	for _, d := range devices {
		at, export, err := attach.ParseURI(d.URI)
		if err == nil && export == cfg.Export && contains(cfg.Addrs, at) && !cfg.ReadOnly && !d.ReadOnly {
			return fail(ExitFailure, "%s is attached already, as %s", cfg.Export, d.Path)
		}
	}
	return nil
}

// attachForeground keeps the device alive until it is detached. When dog is
// ended it detaches it.
func (s *session) attachForeground(ctx context.Context, d attach.Device) error {
	if err := s.out.Flush(); err != nil {
		return err
	}
	s.opts.nbd.connections = d.Connections
	err := s.monitor(ctx, d, s.name(), nil)
	if err == nil || ctx.Err() == nil {
		return err
	}
	if err := s.app.env.Host.Detach(context.WithoutCancel(ctx), d.Index, false); err != nil {
		return nbdFailed(err)
	}
	return nil
}

// leaveMonitor starts a monitor that outlives this process.
func (s *session) leaveMonitor(ctx context.Context, d attach.Device) error {
	if s.app.env.Background == nil {
		return fmt.Errorf("start a monitor: not possible here")
	}
	args := []string{"nbd", "monitor", "--connections", fmt.Sprint(d.Connections)}
	for _, a := range s.opts.nbd.addrs {
		args = append(args, "--nbd-addr", a.String())
	}
	if s.opts.nbd.log != "" {
		args = append(args, "--log", s.opts.nbd.log)
	}
	return s.app.env.Background(ctx, append(args, "--", d.Path, s.name()))
}
