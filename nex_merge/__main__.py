from nex_merge import interrupts

interrupts.install()  # before what takes a while to import

from nex_merge.cli import main  # noqa: E402

main()
