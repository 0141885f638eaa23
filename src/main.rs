fn main() {
    bpp_flow::executor::keeper::main_if_keeper();
}
